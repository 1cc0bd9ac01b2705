//! Programs that free what they may not. Small objects are checked when they come back to their span, large
//! ones at once: one line, and the end. Between the two a program's handler of SIGABRT may use the heap and fork.

mod kit;

use std::alloc::{GlobalAlloc, Layout, alloc, dealloc};

use kit::Child;
use kit::object::layout;
use perseq::Mode;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// In each mode, `misuse` and then everything that sends objects back to their spans.
fn caught(test: &str, message: &str, misuse: impl FnOnce()) {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of(test, "misuse").mode(mode).run().aborted_saying(message).reported();
        }
        return;
    }
    kit::crash::report_crashes();
    let _ = perseq::active_mode();
    misuse();
    perseq::drain();
    perseq::release();
    println!("nobody noticed");
}

fn free(pointer: *mut u8, layout: Layout) {
    // SAFETY: not sound, which is the test: the process aborts before the memory is used again.
    unsafe { dealloc(pointer, layout) };
}

fn new(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not 0.
    unsafe { alloc(layout) }
}

#[test]
fn double_free() {
    caught("double_free", "double free", || {
        let layout = layout(700, 8);
        let kept = new(layout); // so that the span stays in use
        let twice = new(layout);
        assert!(!kept.is_null() && !twice.is_null());
        free(twice, layout);
        free(twice, layout);
    });
}

#[test]
fn double_free_of_a_large_block() {
    caught("double_free_of_a_large_block", "was freed before", || {
        let layout = layout(1 << 20, 8);
        let block = new(layout);
        free(block, layout);
        free(block, layout);
    });
}

#[test]
fn free_into_the_middle() {
    caught("free_into_the_middle", "into the middle of an object", || {
        let layout = layout(700, 8);
        free(new(layout).wrapping_add(8), layout);
    });
}

#[test]
fn free_at_an_odd_address() {
    caught("free_at_an_odd_address", "into the middle of an object", || {
        let layout = layout(700, 1);
        free(new(layout).wrapping_add(3), layout);
    });
}

#[test]
fn free_into_the_middle_of_a_large_block() {
    caught("free_into_the_middle_of_a_large_block", "free of a large block that was not allocated here", || {
        let layout = layout(1 << 20, 8);
        free(new(layout).wrapping_add(8192), layout);
    });
}

#[test]
fn free_with_another_size() {
    caught("free_with_another_size", "another size", || free(new(layout(700, 8)), layout(24, 8)));
}

#[test]
fn free_of_a_small_object_as_a_large_block() {
    caught("free_of_a_small_object_as_a_large_block", "large block that was not allocated here", || {
        free(new(layout(700, 8)), layout(1 << 20, 8));
    });
}

#[test]
fn free_of_a_foreign_pointer() {
    caught("free_of_a_foreign_pointer", "not allocated here", || {
        // SAFETY: the size is not 0.
        free(unsafe { std::alloc::System.alloc(layout(64, 16)) }, layout(64, 16));
    });
}

#[test]
fn free_of_a_foreign_pointer_as_a_large_block() {
    caught("free_of_a_foreign_pointer_as_a_large_block", "not allocated here", || {
        // SAFETY: the size is not 0.
        free(unsafe { std::alloc::System.alloc(layout(1 << 20, 16)) }, layout(1 << 20, 16));
    });
}

#[test]
fn use_of_a_bad_environment() {
    if kit::role().is_some() {
        println!("nobody noticed: {}", perseq::active_mode());
        return;
    }
    let again = || Child::of("use_of_a_bad_environment", "environment");
    for bad in ["PerCpu", "percpu ", "threads"] {
        let said = format!("PERSEQ_MODE={bad}: expected percpu, percpu-mmcid, perthread, ");
        again().env("PERSEQ_MODE", bad).run().aborted_saying(&said);
    }
    for name in ["PERSEQ_CACHE_BYTES", "PERSEQ_TOTAL_BYTES"] {
        for bad in
            ["0", "1", "4095", "3K", "+8K", "none", "-1", "1.5M", "1T", "K", "99999999999999999999", "99999999999999G"]
        {
            again().env(name, bad).run().aborted_saying(&format!("{name}={bad}: expected bytes"));
        }
        again().env(name, "4K").run().passed();
    }
    for (name, bad, good) in [
        ("PERSEQ_IDLE_DRAIN", ["0", "never", "-1", "1s"], "off"),
        ("PERSEQ_SHARDS", ["0", "none", "-1", "4097"], "7"),
        ("PERSEQ_TRANSFER_SHARDS", ["0", "none", "-1", "65"], "64"),
    ] {
        for bad in bad {
            again().env(name, bad).run().aborted_saying(&format!("{name}={bad}: expected "));
        }
        again().env(name, good).run().passed();
    }
    let unknown = again().env("PERSEQ_MOED", "central").env("PERSEQ_MODE", "").run();
    assert!(unknown.stderr.contains("PERSEQ_MOED: there is no such option"), "{unknown}");
    unknown.passed();
    let both = again().env("PERSEQ_CACHE_BYTES", "1M").env("PERSEQ_TOTAL_BYTES", "1M");
    both.run().aborted_saying("PERSEQ_CACHE_BYTES and PERSEQ_TOTAL_BYTES are both set");
}
