//! Random operations, judged by the test kit, in every mode. A failing stream is shrunk to a short one and printed.
//!
//! The kit's model is what is held: layouts, addresses and contents. No two blocks overlap and each is as it was written,
//! errno is what it was or ENOMEM, and at the end nothing is live that was not before. A stream is done in a child first,
//! so that a crash or a hang is shrunk too, and then in the process itself, whose heap becomes older from one to the next.

mod kit;

use std::alloc::Layout;

use allocator_test_kit::{ByGlobal, Errno, Kit, Subject, Tally};
use kit::Child;
use perseq::{Limits, Mode, Perseq};

#[global_allocator]
static ALLOCATOR: Perseq = Perseq::new();

/// perseq, and what it says of itself.
struct Ours {
    /// Memory is limited by perseq; if not, it ends where the address space of the process does.
    limits: bool,
}

const AS_GLOBAL: ByGlobal<Perseq> = ByGlobal(Perseq::new());

// SAFETY: passes calls on.
unsafe impl Subject for Ours {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same, here and below.
        unsafe { AS_GLOBAL.allocate(layout) }
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { AS_GLOBAL.allocate_zeroed(layout) }
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { AS_GLOBAL.resize(block, layout, size) }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { AS_GLOBAL.free(block, layout) }
    }

    fn drain(&self, whole: bool) -> bool {
        if whole {
            perseq::release();
        } else {
            perseq::drain();
        }
        true
    }

    fn limit(&self, bytes: Option<usize>) -> bool {
        if self.limits {
            let hard = bytes.map(|bytes| perseq::stats().held_bytes as usize + bytes);
            perseq::set_limits(Limits { soft: None, hard });
        }
        self.limits
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        let stats = perseq::stats();
        Some([stats.live_small_bytes, stats.live_large_bytes])
    }

    fn allows_handlers(&self) -> bool {
        !matches!(perseq::active_mode().active, Mode::PerThread | Mode::PerThreadDrain)
    }

    fn errno(&self) -> Errno {
        Errno::KEPT
    }
}

fn seed() -> u64 {
    std::env::var("PERSEQ_TEST_SEED").map_or(1, |text| text.parse().expect("a number"))
}

fn passes<S: Subject>(kit: &Kit, make: impl Fn() -> S) -> Tally {
    let passed = kit.run(make).unwrap_or_else(|failure| panic!("{failure}"));
    // A row of streams that misses a kind of operation would prove little of it.
    let Tally { allocated, refused, resized, freed, sent, ended, moved, .. } = passed;
    let Tally { interrupted, forked, drained, exhausted, .. } = passed;
    let reached = [allocated, refused, resized, freed, sent, ended, moved, interrupted, forked, drained, exhausted];
    assert!(reached.iter().all(|count| *count > 0), "{passed:?}");
    passed
}

#[test]
fn operations_against_a_model() {
    kit::in_every_mode("operations_against_a_model", || {
        std::thread::spawn(|| ()).join().expect("a thread, so that what the first one needs is there");
        let cases = (kit::duration(1.0).as_secs_f64() * 40.0).ceil() as u32;
        let kit = Kit::new().seed(seed()).cases(cases).ages();
        println!("{:?}", passes(&kit, || Ours { limits: true }));
    });
}

#[test]
fn operations_in_little_address_space() {
    kit::in_every_mode("operations_in_little_address_space", || {
        let cases = (kit::duration(1.0).as_secs_f64() * 20.0).ceil() as u32;
        println!("{:?}", passes(&Kit::new().seed(!seed()).cases(cases), || Ours { limits: false }));
    });
}

#[test]
fn operations_hardened() {
    if kit::role().is_none() {
        Child::of("operations_hardened", "hardened").env("PERSEQ_HARDENED", "1").run().passed();
        return;
    }
    let cases = (kit::duration(1.0).as_secs_f64() * 20.0).ceil() as u32;
    println!("{:?}", passes(&Kit::new().seed(seed()).cases(cases).ages(), || Ours { limits: true }));
}
