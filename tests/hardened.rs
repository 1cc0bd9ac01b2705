//! The hardened mode: ordinary programs run in it, and what others do wrong is seen where it happens.

mod kit;

use std::alloc::{GlobalAlloc, Layout, alloc, dealloc};
use std::os::unix::process::ExitStatusExt;

use kit::Child;
use kit::object::{LARGE_SIZES, Object, SIZES, layout};
use kit::seccomp::{Refusal, install};
use kit::torture::{Plan, run};
use perseq::{COUNTS_HITS, Mode, Perseq, Reason, stats};

#[global_allocator]
static ALLOCATOR: Perseq = Perseq::new();

fn child(test: &str) -> Child {
    Child::of(test, "hardened").env("PERSEQ_HARDENED", "1")
}

/// `misuse` ends the process with `message`, at once: nothing is drained.
fn caught(test: &str, message: &str, misuse: impl FnOnce()) {
    if kit::role().is_none() {
        child(test).run().aborted_saying(message).reported();
        return;
    }
    kit::crash::report_crashes();
    assert_eq!(perseq::active_mode().reason, Reason::Hardened);
    misuse();
    println!("nobody noticed");
}

/// `misuse` touches what has no access.
fn faults(test: &str, misuse: impl FnOnce()) {
    if kit::role().is_none() {
        let outcome = child(test).run();
        assert_eq!(outcome.status.signal(), Some(libc::SIGSEGV), "{outcome}");
        return;
    }
    no_core();
    // SAFETY: the default action in place of the Rust runtime's report.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    misuse();
    println!("nobody noticed");
}

/// The process is about to be killed, and leaves no core.
fn no_core() {
    // SAFETY: reads a structure of ours.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
}

fn new(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { alloc(layout) };
    assert!(!block.is_null());
    block
}

fn free(pointer: *mut u8, layout: Layout) {
    // SAFETY: not sound, which is the test: the process ends before the memory is used again.
    unsafe { dealloc(pointer, layout) };
}

#[test]
fn programs_run_as_ever() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            child("programs_run_as_ever").mode(mode).run().passed();
        }
        return;
    }
    let mode = perseq::active_mode();
    assert_eq!((mode.active, mode.reason), (Mode::Central, Reason::Hardened));
    run(Plan::everything(kit::duration(1.0)));
    perseq::check();
    perseq::drain(); // a full quarantine may hold less after a free: what makes room for one block is another's whole size
    assert_eq!(stats().quarantined_bytes, 0);
    let objects: Vec<_> = SIZES.iter().chain(&LARGE_SIZES).map(|&size| Object::new(layout(size, 8), 1)).collect();
    for mut object in objects {
        let size = object.layout().size();
        object.try_resize(size * 2, 2).expect("memory");
        object.try_resize(size, 3).expect("memory");
        object.free();
    }
    let freed = stats();
    assert!(freed.quarantined_bytes > 0, "{freed:?}");
    perseq::for_each_class(&mut |class| {
        let free = class.transfer_objects + class.central_objects + class.quarantined_objects;
        assert_eq!(class.live_objects + free, class.spans * (class.span_size / class.size), "{class:?}");
        if COUNTS_HITS {
            assert_eq!(class.uncached_allocs - class.uncached_frees, class.live_objects, "{class:?}");
        }
    });
    assert!(perseq::drain() > 0);
    assert_eq!(stats().quarantined_bytes, 0);
    perseq::check();
}

#[test]
fn double_free_is_seen_at_once() {
    caught("double_free_is_seen_at_once", "double free", || {
        let twice = new(layout(700, 8));
        free(twice, layout(700, 8));
        free(twice, layout(700, 8));
    });
}

#[test]
fn double_free_long_after() {
    caught("double_free_long_after", "double free", || {
        let kept = new(layout(700, 8)); // so that the span stays in use
        let twice = new(layout(700, 8));
        free(twice, layout(700, 8));
        perseq::drain();
        free(twice, layout(700, 8));
        free(kept, layout(700, 8));
    });
}

#[test]
fn double_free_of_a_large_block() {
    caught("double_free_of_a_large_block", "double free of a large block", || {
        let twice = new(layout(1 << 20, 8));
        free(twice, layout(1 << 20, 8));
        free(twice, layout(1 << 20, 8));
    });
}

#[test]
fn free_into_the_middle() {
    caught("free_into_the_middle", "into the middle of an object", || {
        free(new(layout(700, 8)).wrapping_add(8), layout(700, 8));
    });
}

#[test]
fn free_with_another_size() {
    caught("free_with_another_size", "another size", || free(new(layout(700, 8)), layout(24, 8)));
}

#[test]
fn free_of_a_large_block_as_a_small_object() {
    caught("free_of_a_large_block_as_a_small_object", "another size", || {
        free(new(layout(1 << 20, 8)), layout(24, 8));
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
fn free_sized_with_another_size() {
    caught("free_sized_with_another_size", "another size", || {
        let right = ALLOCATOR.alloc_bytes(700, 16);
        // SAFETY: the block's own size and alignment.
        unsafe { ALLOCATOR.free_sized(right, 700, 16) };
        let wrong = ALLOCATOR.alloc_bytes(700, 16);
        // SAFETY: not sound: see `free`.
        unsafe { ALLOCATOR.free_sized(wrong, 24, 16) };
    });
}

#[test]
fn free_sized_of_a_large_block_with_another_size() {
    caught("free_sized_of_a_large_block_with_another_size", "another size", || {
        // After a resize the size is the new one.
        let moved = ALLOCATOR.alloc_bytes(1 << 20, 16);
        // SAFETY: a live block, and then one with the size it has.
        unsafe {
            let moved = ALLOCATOR.resize(moved, 700_000);
            ALLOCATOR.free_sized(moved, 700_000, 16);
            let moved = ALLOCATOR.resize(ALLOCATOR.alloc_bytes(600, 16), 400);
            ALLOCATOR.free_sized(moved, 400, 16);
        }
        let wrong = ALLOCATOR.alloc_bytes(1 << 20, 16);
        // SAFETY: not sound: see `free`.
        unsafe { ALLOCATOR.free_sized(wrong, (1 << 20) - 100_000, 16) };
    });
}

#[test]
fn write_after_free() {
    caught("write_after_free", "write to an object after it was freed", || {
        let object = new(layout(700, 8));
        free(object, layout(700, 8));
        // SAFETY: not sound, but the memory is mapped, and nobody else's yet.
        unsafe { object.add(100).write_volatile(1) };
        // More frees, of other sizes too, and it leaves quarantine.
        (0..5000).for_each(|number| free(new(layout(64 + number % 64, 8)), layout(64 + number % 64, 8)));
    });
}

#[test]
fn resize_of_a_large_block_after_it_was_freed() {
    for size in [1 << 20, 4 << 20] {
        let role = size.to_string();
        if kit::role().is_none() {
            let outcome = Child::of("resize_of_a_large_block_after_it_was_freed", &role).env("PERSEQ_HARDENED", "1");
            outcome.run().aborted_saying("resize of a large block that was freed before").reported();
        } else if kit::role() == Some(role) {
            kit::crash::report_crashes();
            let block = new(layout(1 << 20, 8));
            free(block, layout(1 << 20, 8));
            // SAFETY: not sound: see `free`.
            println!("nobody noticed: {:p}", unsafe { std::alloc::realloc(block, layout(1 << 20, 8), size) });
        }
    }
}

/// A block that grows moves, and what the program never touched takes no memory at either place.
#[test]
fn growing_blocks_keep_what_was_never_touched_out_of_memory() {
    if kit::role().is_none() {
        child("growing_blocks_keep_what_was_never_touched_out_of_memory").run().passed();
        return;
    }
    const BYTES: usize = 64 << 20;
    let block = new(layout(BYTES, 8));
    let places = [0, 5 << 20, BYTES - 1];
    // SAFETY: within the block, which is freed once, with its last layout.
    unsafe {
        places.iter().for_each(|place| block.add(*place).write(42));
        let before = kit::resident_bytes();
        let grown = std::alloc::realloc(block, layout(BYTES, 8), BYTES + 12345);
        assert_ne!(grown, block);
        assert!(places.iter().all(|place| *grown.add(*place) == 42) && *grown.add(1 << 20) == 0);
        let after = kit::resident_bytes();
        assert!(after < before + (4 << 20), "{before} then {after}");
        dealloc(grown, layout(BYTES + 12345, 8));
    }
}

/// What the quarantine keeps is there for the program if nothing else is.
#[test]
fn quarantine_gives_way_to_a_limit() {
    if kit::role().is_none() {
        child("quarantine_gives_way_to_a_limit").env("PERSEQ_HARD_LIMIT", "64M").run().passed();
        return;
    }
    for _ in 0..10 {
        free(new(layout(40 << 20, 8)), layout(40 << 20, 8));
    }
}

/// A large block whose guard the kernel refuses fails; its pages are as they were.
#[test]
fn guard_refused() {
    const REFUSED: [Refusal; 2] = [
        Refusal { call: libc::SYS_mprotect, errno: libc::ENOMEM },
        Refusal { call: libc::SYS_madvise, errno: libc::EINVAL }, // so that they do not go back
    ];
    if kit::role().is_none() {
        child("guard_refused").run().passed();
        return;
    }
    // Poison, in pages that are free again.
    let size = 600;
    let objects: Vec<_> = (0..10_000).map(|_| new(layout(size, 8)) as usize).collect();
    objects.into_iter().for_each(|object| free(object as *mut u8, layout(size, 8)));
    perseq::drain();
    let large = layout(3 << 20, 8);
    assert!(stats().free_page_bytes as usize > large.size(), "{}", stats());
    let refused = std::thread::spawn(move || {
        install(&REFUSED).expect("a filter"); // of this thread
        // SAFETY: the size is not 0.
        std::hint::black_box(unsafe { alloc(large) }).is_null()
    });
    assert!(refused.join().expect("it only allocates"));
    // SAFETY: the size is not 0, and the block has so many bytes.
    unsafe {
        let block = std::alloc::alloc_zeroed(large);
        assert!(!block.is_null());
        assert!(std::slice::from_raw_parts(block, large.size()).iter().all(|byte| *byte == 0));
        dealloc(block, large);
    }
}

#[test]
fn write_past_the_end_of_a_large_block() {
    faults("write_past_the_end_of_a_large_block", || {
        let block = new(layout(1 << 20, 8));
        // SAFETY: the last byte of the block, and then one of the page behind it.
        unsafe {
            block.add((1 << 20) - 1).write_volatile(1);
            block.add(1 << 20).write_volatile(1);
        }
    });
}

#[test]
fn use_of_a_large_block_after_it_was_freed() {
    faults("use_of_a_large_block_after_it_was_freed", || {
        let block = new(layout(1 << 20, 8));
        free(block, layout(1 << 20, 8));
        // SAFETY: not sound, which is the test.
        println!("{}", unsafe { block.read_volatile() });
    });
}

#[test]
fn other_answers_are_refused() {
    if kit::role().is_some() {
        println!("{}", perseq::active_mode());
        return;
    }
    let again = |value| Child::of("other_answers_are_refused", "value").env("PERSEQ_HARDENED", value).run();
    again("yes").aborted_saying("PERSEQ_HARDENED=yes: expected 0 or 1");
    again("1").passed().said("hardened: every operation is checked");
    again("0").passed().said("as requested");
}
