//! Where the memory of a sample lies: dealt to each block, the same for all of it.
//!
//! The kernel draws the addresses of every process anew, and where memory lies changes what a tight loop takes: lines at
//! certain distances displace each other's entries in a processor's predictors (for the way predictor of AMD's first-level
//! cache: Lipp et al., "Take A Way", ASIA CCS 2020). Between two samples of a block that would be noise. So the
//! [launcher](crate::harness::launch) has the kernel draw nothing, and the worker moves its memory by what its block was
//! dealt: the start of its stack by the environment, its heap and what it maps by holes. Addresses remain a random factor,
//! as the copies of the measured loop are one: of the block, and not of the sample.

use nix::libc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes of the largest hole in what is mapped. It is address space alone.
const HOLE_BYTES: usize = 256 << 20;
const PAGE_BYTES: usize = 4096;

/// Bytes of the largest hole in the heap, less than the C library maps for itself; and what it is a multiple of.
const HEAP_BYTES: usize = 96 << 10;
const HEAP_STEP: usize = 16;

/// The variable that asks the launcher for addresses that are not drawn.
pub const VARIABLE: &str = "LAUNCH_ADDRESSES";

/// Has the kernel draw no addresses from the next `exec` on. Fails where a filter of system calls refuses it.
pub fn undrawn() -> std::io::Result<()> {
    personality((personality(ASK)? | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong).map(drop)
}

/// The argument of personality(2) that changes nothing.
const ASK: libc::c_ulong = 0xffff_ffff;

/// The flags of this process, before it gets those of `wanted`.
fn personality(wanted: libc::c_ulong) -> std::io::Result<libc::c_int> {
    // SAFETY: reads or changes flags of this process and touches no memory.
    let before = unsafe { libc::personality(wanted) };
    if before < 0 { Err(std::io::Error::last_os_error()) } else { Ok(before) }
}

/// Whether the kernel drew the addresses of this process. Who may not ask may not have asked for others either.
fn drawn() -> bool {
    personality(ASK).map_or(true, |flags| flags & libc::ADDR_NO_RANDOMIZE == 0)
}

/// Moves what this process is going to allocate by what `draw` says. Why its addresses are not those of its block all the
/// same, if the kernel drew them.
pub fn deal(draw: u64) -> Result<Option<String>, String> {
    let mut random = ChaCha8Rng::seed_from_u64(draw);
    let pages = random.random_range(1..=HOLE_BYTES / PAGE_BYTES);
    let bytes = random.random_range(1..=HEAP_BYTES / HEAP_STEP) * HEAP_STEP;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: maps new pages that nobody uses and nobody gives back.
    let hole = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE_BYTES, libc::PROT_NONE, flags, -1, 0) };
    if hole == libc::MAP_FAILED {
        return Err(format!("addresses: {pages} pages: {}", std::io::Error::last_os_error()));
    }
    let layout = Layout::from_size_align(bytes, HEAP_STEP).map_err(|error| error.to_string())?;
    // SAFETY: the size is not 0. What is allocated is not used and not freed.
    if unsafe { System.alloc(layout) }.is_null() {
        return Err(format!("addresses: {bytes} bytes of heap: out of memory"));
    }
    Ok(drawn()
        .then(|| "addresses were drawn by the kernel for this sample alone: personality(2) was refused".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::process::{Ended, Job, observe};
    use std::time::Duration;

    /// Where the stack, the heap and the program of a process lie.
    fn places(undrawn: bool) -> Vec<String> {
        let job = Job::new("/bin/cat", Duration::from_secs(120)).argument("/proc/self/maps");
        let variable = undrawn.then_some((VARIABLE, "undrawn"));
        let Ok(Ended::Exited(exited)) = observe(&job.environment(variable)) else { panic!("it ends") };
        assert_eq!(exited.last_line(), "no message");
        let named = |line: &&str| ["[stack]", "[heap]", "/cat"].iter().any(|name| line.ends_with(name));
        let maps = String::from_utf8(exited.stdout).unwrap();
        maps.lines().filter(named).map(str::to_owned).collect()
    }

    #[test]
    fn undrawn_addresses_are_the_same_in_every_process_and_drawn_ones_are_not() {
        let drawn = std::fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap().trim() != "0";
        assert_eq!(places(true), places(true));
        assert!(!places(true).is_empty());
        if drawn {
            assert_ne!(places(false), places(false));
        }
    }

    /// A process whose addresses were drawn says so; and what is mapped behind a hole lies behind it.
    #[test]
    fn memory_is_moved_by_what_was_dealt() {
        let map = || {
            // SAFETY: a page that nobody uses.
            let page = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    64 << 20,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(page, libc::MAP_FAILED);
            page as usize
        };
        let before = map();
        let said = deal(1).unwrap();
        assert_eq!(said.is_some(), drawn(), "{said:?}");
        assert_ne!(map(), before - (64 << 20), "it lies where it would without a hole");
    }
}
