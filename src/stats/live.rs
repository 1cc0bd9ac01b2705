//! Where the tables of this process are, for who reads its memory from outside, as `perseq stats` and `perseq top` do.
//!
//! [`Live`] is one static of the allocator. It says where each tier keeps its numbers, and what is where in each
//! record. Who may read the process's memory (process_vm_readv) needs nothing else, and the process does nothing for
//! it: it executes no instruction more, takes no lock and stores nothing but what is in `decision`, once, at the first
//! allocation.
//!
//! # How it is found
//!
//! By its first bytes, not by a name: programs are stripped, files of running libraries replaced, containers hide both,
//! and two allocators in one process would share a name. It begins with [`MAGIC`] on a multiple of [`ALIGNMENT`], in
//! the writable part of a mapped program or library, and then says its own address, which no copy of it can. An
//! allocator that nobody has used yet is there as well: its `decision` is not made.
//!
//! # What a reader has to expect
//!
//! * Everything may change while it is read. What is counted under a lock is whole if the lock's word was 0 before and
//!   after, and nothing changed in between; everything else is a number by itself.
//! * Nothing that is named here is ever unmapped: a chain may be followed at any time.
//! * [`VERSION`] says what the fields mean and where they are. Another version has another layout, of which the [head]
//!   alone is the same.
//!
//! [head]: Head

use core::fmt::{self, Write};
use core::sync::atomic::{
    AtomicU8, AtomicU32,
    Ordering::{Relaxed, Release},
};

use crate::config::{BUILD_CONFIG, PAGE_SIZE};
use crate::decided;
use crate::emergency;
use crate::front_end::cache;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::middle::central_free_list::CentralFreeList;
use crate::mode::ActiveMode;
use crate::place::bytes;
use crate::profile;
use crate::size_class;
use crate::slices;
use crate::sync::Padded;
use crate::way;

pub use crate::emergency::EmergencyLayout;
pub use crate::front_end::cache::layout::CacheLayout;
pub use crate::hardened::QuarantineLayout;
pub use crate::middle::central_free_list::CentralLayout;
pub use crate::middle::transfer_cache::TransferCacheLayout;
pub use crate::middle::transfer_caches::TransferLayout;
pub use crate::page_heap::directory::DirectoryLayout;
pub use crate::page_heap::huge_pages::HugePageLayout;
pub use crate::page_heap::layout::PageHeapLayout;
pub use crate::page_heap::span::SpanLayout;
pub use crate::place::{Extent, Place};
pub use crate::profile::fate::{AGES, FIRST_AGE};
pub use crate::profile::layout::ProfileLayout;
pub use crate::size_class::ClassLayout;

/// What [`Live`] begins with.
pub const MAGIC: [u8; 16] = *b"\x7fperseq.live\r\n\x1a\x89";
/// What its address is a multiple of.
pub const ALIGNMENT: usize = 64;
/// The layout that this build has.
pub const VERSION: u32 = 6;

/// What every version of [`Live`] begins with.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// The address of the structure itself.
    pub this: Place,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of the structure.
    pub bytes: u32,
}

/// Where everything is. Texts end at the first byte that is 0, or with their field.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Live {
    /// What it is.
    pub head: Head,
    /// The version of perseq.
    pub perseq: [u8; 16],
    /// What the build's configuration calls itself.
    pub config: [u8; 32],
    /// Bytes of a page of the allocator's.
    pub page_bytes: u32,
    /// 1 if the build counts hits.
    pub counts_hits: u32,
    /// What the first allocation decided.
    pub decision: DecisionText,
    /// The size classes.
    pub classes: ClassLayout,
    /// The caches.
    pub caches: CacheLayout,
    /// The transfer caches.
    pub transfer: TransferLayout,
    /// The central free lists: the first class's.
    pub central: Place,
    /// Bytes from one class's to the next one's.
    pub central_stride: u32,
    /// What is in each.
    pub central_list: CentralLayout,
    /// The page heap.
    pub pages: PageHeapLayout,
    /// Emergency memory.
    pub emergency: EmergencyLayout,
    /// The quarantine of the hardened mode.
    pub quarantine: QuarantineLayout,
    /// The heap profile.
    pub profile: ProfileLayout,
    /// What operations of every thread read and nobody writes: which mode runs, and the tables of the size classes.
    pub shared: [Extent; 5],
    /// A word of 64 bits: sequences that the kernel aborted and that were restarted.
    pub restarts: Place,
    /// Two more: times the kernel gave a holder of a lock more time, and times it preempted one all the same.
    pub slices: [Place; 2],
}

/// What the first allocation decided, in texts.
#[derive(Debug)]
#[repr(C)]
pub struct DecisionText {
    /// 1 once it is made.
    pub made: AtomicU32,
    /// The mode that was asked for.
    pub requested: [AtomicU8; 24],
    /// The mode that runs.
    pub active: [AtomicU8; 24],
    /// What the cache with the number 0 is called, such as `cpu 0`. Empty in a mode without caches.
    pub owner: [AtomicU8; 12],
    /// Why it runs.
    pub reason: [AtomicU8; 128],
    /// Whether holders of locks ask for more time, and why not.
    pub slices: [AtomicU8; 128],
}

/// The process's own. Nothing here reads it, so the compiler is told that somebody else does.
#[used]
pub static LIVE: Live = Live {
    head: Head { magic: MAGIC, this: Place::of(&raw const LIVE), version: VERSION, bytes: bytes(size_of::<Live>()) },
    perseq: text(env!("CARGO_PKG_VERSION")),
    config: text(BUILD_CONFIG),
    page_bytes: bytes(PAGE_SIZE),
    counts_hits: crate::stats::numbers::COUNTS_HITS as u32,
    decision: DecisionText {
        made: AtomicU32::new(0),
        requested: [const { AtomicU8::new(0) }; 24],
        active: [const { AtomicU8::new(0) }; 24],
        owner: [const { AtomicU8::new(0) }; 12],
        reason: [const { AtomicU8::new(0) }; 128],
        slices: [const { AtomicU8::new(0) }; 128],
    },
    classes: size_class::layout(),
    caches: cache::layout::layout(),
    transfer: BACK_END.transfer.layout(),
    central: Place::of(&raw const BACK_END.central),
    central_stride: bytes(size_of::<Padded<CentralFreeList>>()),
    central_list: CentralFreeList::LAYOUT,
    pages: BACK_END.pages.layout(),
    emergency: emergency::layout(),
    quarantine: hardened::layout(),
    profile: profile::layout::layout(),
    shared: {
        let [classes, by_size, by_block] = size_class::tables();
        [way::extent(), decided::extent(), classes, by_size, by_block]
    },
    restarts: Place::of(rseq::restarts_place()),
    slices: {
        let [granted, lost] = slices::counts();
        [Place::of(granted), Place::of(lost)]
    },
};

const _: () = assert!(align_of::<Live>() == ALIGNMENT && size_of::<Head>() == 32);

impl Live {
    /// What a process has where its own structure is, from its bytes. Look at the [`Head`] first: `None` if they are
    /// not as many, or are of another version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Live> {
        let head = Head::from_bytes(bytes)?;
        if (head.version, head.bytes as usize, bytes.len()) != (VERSION, size_of::<Live>(), size_of::<Live>()) {
            return None;
        }
        // SAFETY: so many bytes. Every field is made of numbers and addresses, of which all bits are values.
        Some(unsafe { bytes.as_ptr().cast::<Live>().read_unaligned() })
    }
}

impl Head {
    /// The head that these bytes begin with. `None` if it is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Head> {
        if bytes.len() < size_of::<Head>() || bytes[..MAGIC.len()] != MAGIC {
            return None;
        }
        // SAFETY: so many bytes. Numbers and an address, of which all bits are values.
        Some(unsafe { bytes.as_ptr().cast::<Head>().read_unaligned() })
    }
}

/// Writes down what was decided. By the thread that decides, once.
pub fn note(mode: &ActiveMode) {
    let decision = &LIVE.decision;
    let owner = mode.active.owner(0);
    // What has no room is cut off.
    _ = write!(Cells(&decision.requested), "{}", mode.requested);
    _ = write!(Cells(&decision.active), "{}", mode.active);
    _ = write!(Cells(&decision.reason), "{}", mode.reason);
    _ = write!(Cells(&decision.slices), "{}", mode.slices);
    if let Some(owner) = owner {
        _ = write!(Cells(&decision.owner), "{owner}");
    }
    decision.made.store(1, Release); // for a reader that sees the word and then looks at the texts
}

/// Room for a text.
struct Cells<'a>(&'a [AtomicU8]);

impl Write for Cells<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let (cell, rest) = self.0.split_first().ok_or(fmt::Error)?;
            cell.store(byte, Relaxed); // published by `made`
            self.0 = rest;
        }
        Ok(())
    }
}

/// A text in a field of a fixed length, cut off if it is longer.
const fn text<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let (mut field, mut place) = ([0; LENGTH], 0);
    while place < LENGTH && place < text.len() {
        field[place] = text.as_bytes()[place];
        place += 1;
    }
    field
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn it_is_where_it_says_and_reads_as_what_it_is() {
        let (address, mut bytes) = (&raw const LIVE as usize, vec![0; size_of::<Live>()]);
        let memory = File::open("/proc/self/mem").expect("this process's memory");
        memory.read_exact_at(&mut bytes, address as u64).expect("a static");
        assert!(address.is_multiple_of(ALIGNMENT));
        let head = Head::from_bytes(&bytes).expect("a head");
        assert_eq!((head.this.address() as usize, head.bytes as usize), (address, bytes.len()));
        let read = Live::from_bytes(&bytes).expect("this version");
        assert_eq!(read.perseq, LIVE.perseq);
        assert_eq!(read.restarts, LIVE.restarts);
        // Another version is none of ours, and neither is half of it, nor what begins otherwise.
        let mut other = bytes.clone();
        other[24] += 1;
        assert!(Live::from_bytes(&other).is_none() && Head::from_bytes(&other).is_some());
        assert!(Live::from_bytes(&bytes[..bytes.len() - 64]).is_none());
        assert!(Head::from_bytes(&bytes[1..]).is_none() && Head::from_bytes(&bytes[..31]).is_none());
    }

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let cells = [const { AtomicU8::new(0) }; 4];
        let thread = "thread";
        assert!(write!(Cells(&cells), "per {thread}").is_err());
        let read: Vec<u8> = cells.iter().map(|cell| cell.load(Relaxed)).collect();
        assert_eq!(String::from_utf8_lossy(&read), "per ");
        assert_eq!(text::<4>("default"), *b"defa");
        assert_eq!(text::<4>("my"), *b"my\0\0");
    }
}
