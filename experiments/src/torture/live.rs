//! Which bytes of the address space are in a block that was allocated and not freed: a bit for each 8 bytes.
//!
//! A block whose bits are set already was handed out twice, or overlaps another. The map takes no lock, and its memory
//! is the kernel's: it works in any thread, under any allocator, and in a forked child as it was in the parent.
//!
//! ```text
//! address >> 21 ──► slot of an open-addressed table ──► leaf of 32 KiB: 2 MiB of address space
//! ```
//!
//! A bit is set after the allocation and cleared before the free, so the two owners of a block that changes hands never
//! meet in it. Relaxed would do for that: the allocator orders one owner's free before the next one's allocation.

use super::fault::fault;
use nix::libc;
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire},
};

const LEAF_SHIFT: u32 = 21;
const GRANULE: usize = 8;
const WORDS: usize = (1 << LEAF_SHIFT) / GRANULE / 64;
/// Places for leaves: 256 GiB of addresses, more than a process of the torture ever sees.
const SLOTS: usize = 1 << 17;

type Leaf = [AtomicU64; WORDS];

struct Slot {
    /// 0, or 1 + the address above [`LEAF_SHIFT`].
    key: AtomicUsize,
    leaf: AtomicPtr<Leaf>,
}

static TABLE: [Slot; SLOTS] = [const { Slot { key: AtomicUsize::new(0), leaf: AtomicPtr::new(null_mut()) } }; SLOTS];

/// Notes that the block was allocated.
pub fn born(address: usize, size: usize) {
    each_word(address, size, |word, mask| {
        if word.fetch_or(mask, AcqRel) & mask != 0 {
            fault(format_args!("doubled: {size} bytes at {address:#x} overlap a block that is in use"));
        }
    });
}

/// Notes that the block is about to be freed.
pub fn died(address: usize, size: usize) {
    each_word(address, size, |word, mask| {
        if word.fetch_and(!mask, AcqRel) & mask != mask {
            fault(format_args!("lost: {size} bytes at {address:#x} are in use and not known as such"));
        }
    });
}

/// How many granules are in blocks in use. For when nobody allocates.
pub fn count() -> u64 {
    let leaves = TABLE.iter().map(|slot| slot.leaf.load(Acquire)).filter(|leaf| !leaf.is_null());
    // SAFETY: leaves are never unmapped.
    let words = leaves.flat_map(|leaf| unsafe { &*leaf });
    words.map(|word| u64::from(word.load(Acquire).count_ones())).sum()
}

fn each_word(address: usize, size: usize, mut visit: impl FnMut(&AtomicU64, u64)) {
    let (mut granule, end) = (address / GRANULE, (address + size).div_ceil(GRANULE));
    while granule < end {
        let leaf = leaf((granule * GRANULE) >> LEAF_SHIFT);
        // To the end of the leaf or of the block.
        let stop = end.min((granule / (WORDS * 64) + 1) * WORDS * 64);
        while granule < stop {
            let bit = granule % 64;
            let count = (64 - bit).min(stop - granule);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << bit };
            visit(&leaf[granule / 64 % WORDS], mask);
            granule += count;
        }
    }
}

fn leaf(number: usize) -> &'static Leaf {
    let start = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    for step in 0..SLOTS {
        let slot = &TABLE[(start + step) % SLOTS];
        let mut key = slot.key.load(Acquire);
        if key == 0 {
            key = slot.key.compare_exchange(0, number + 1, AcqRel, Acquire).err().unwrap_or(number + 1);
        }
        if key == number + 1 {
            let leaf = slot.leaf.load(Acquire);
            let leaf = if leaf.is_null() { make(&slot.leaf) } else { leaf };
            // SAFETY: a mapping of a leaf's size, zeroed by the kernel, never unmapped once it is in the table.
            return unsafe { &*leaf };
        }
    }
    fault(format_args!("the map of live blocks is full: more than {SLOTS} pieces of 2 MiB were seen"));
}

fn make(place: &AtomicPtr<Leaf>) -> *mut Leaf {
    let fresh = map();
    match place.compare_exchange(null_mut(), fresh, AcqRel, Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            // SAFETY: ours, and nobody has seen it.
            unsafe { libc::munmap(fresh.cast(), size_of::<Leaf>()) };
            other
        }
    }
}

/// Asks again while a storm has the address space limited.
fn map() -> *mut Leaf {
    for _ in 0..20_000 {
        // SAFETY: a new mapping.
        let address = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(null_mut(), size_of::<Leaf>(), access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if address != libc::MAP_FAILED {
            return address.cast();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    fault(format_args!("no memory for the map of live blocks: {}", std::io::Error::last_os_error()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that no allocator uses.
    const NOWHERE: usize = 0x7000_0000_0000 - 40;

    #[test]
    fn a_block_over_two_leaves_is_counted_once() {
        let before = count();
        born(NOWHERE, 3 << LEAF_SHIFT);
        assert_eq!(count() - before, (3 << LEAF_SHIFT) / GRANULE as u64);
        died(NOWHERE, 3 << LEAF_SHIFT);
        born(NOWHERE, 1);
        born(NOWHERE + 8, 17);
        assert_eq!(count() - before, 4);
        died(NOWHERE + 8, 17);
        died(NOWHERE, 1);
        assert_eq!(count(), before);
    }
}
