//! Choosing the mode before the first allocation. This binary's global allocator is the system's, so that it
//! is the test that allocates first.

mod kit;

use std::alloc::{GlobalAlloc, Layout};

use kit::Child;
use perseq::{Mode, Perseq, Reason, active_mode, set_mode};

const LAYOUT: Layout = Layout::new::<[u64; 4]>();

/// Allocates and frees one object.
fn use_once(heap: &Perseq) {
    // SAFETY: the layout has a size; the object is freed with the same.
    unsafe {
        let object = heap.alloc(LAYOUT);
        assert!(!object.is_null());
        heap.dealloc(object, LAYOUT);
    }
}

/// Runs `test` in processes of its own, one for each mode named in the role.
fn for_each_role(test: &str, body: impl FnOnce(Mode)) {
    match kit::role() {
        None => Mode::ALL.into_iter().for_each(|mode| drop(Child::of(test, mode.name()).run().passed())),
        Some(name) => body(Mode::from_name(&name).expect("a mode's name")),
    }
}

/// What `mode` becomes on this kernel.
fn assert_active(mode: Mode) {
    let found = active_mode();
    assert_eq!(found.requested, mode);
    if found.reason == Reason::AsRequested {
        assert_eq!(found.active, mode);
    } else {
        kit::not_tested(kit::absent(found.reason), format_args!("mode {mode}"), found.reason);
    }
}

#[test]
fn set_mode_first() {
    for_each_role("set_mode_first", |mode| {
        assert_eq!(set_mode(Mode::Central), Ok(()));
        assert_eq!(set_mode(mode), Ok(()), "the last choice counts");
        use_once(&Perseq::new());
        assert_active(mode);
        assert_eq!(set_mode(Mode::Central).expect_err("decided").0, active_mode());
        assert_active(mode);
    });
}

#[test]
fn the_allocators_own_mode() {
    for_each_role("the_allocators_own_mode", |mode| {
        use_once(&Perseq::with_mode(mode));
        assert_active(mode);
    });
}

#[test]
fn set_mode_over_the_allocators_own() {
    for_each_role("set_mode_over_the_allocators_own", |mode| {
        assert_eq!(set_mode(mode), Ok(()));
        use_once(&Perseq::with_mode(Mode::Central));
        assert_active(mode);
    });
}

#[test]
fn the_environment_over_all() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("the_environment_over_all", mode.name()).mode(mode).run().passed();
        }
        return;
    }
    assert_eq!(set_mode(Mode::Central), Ok(()));
    use_once(&Perseq::with_mode(Mode::PerThread));
    assert_active(Mode::from_name(&kit::role().expect("asked above")).expect("a mode's name"));
}

/// The first allocation of many threads at once decides once.
#[test]
fn first_allocations_at_once() {
    for_each_role("first_allocations_at_once", |mode| {
        assert_eq!(set_mode(mode), Ok(()));
        let barrier = std::sync::Barrier::new(32);
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    barrier.wait();
                    (0..100).for_each(|_| use_once(&Perseq::new()));
                    assert_active(mode);
                });
            }
        });
    });
}

/// What a program that allocates a few objects pays in memory for the allocator: tables are not touched before they
/// are needed.
#[test]
fn the_first_objects_take_little() {
    let anonymous = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 or later");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    };
    for_each_role("the_first_objects_take_little", |mode| {
        assert_eq!(set_mode(mode), Ok(()));
        let before = anonymous();
        let heap = Perseq::new();
        for size in [24, 100, 1000, 4000] {
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the layout has a size; the object is freed with the same.
            unsafe {
                let object = heap.alloc(layout);
                object.write(1);
                heap.dealloc(object, layout);
            }
        }
        let taken = anonymous() - before;
        println!("{mode}: {taken} bytes");
        assert!(taken <= 256 << 10, "{mode}: four objects made {taken} bytes resident");
    });
}

/// Setting up allocates nothing from the global allocator: this one would count it.
#[test]
fn setting_up_allocates_nothing() {
    for_each_role("setting_up_allocates_nothing", |mode| {
        assert_eq!(set_mode(mode), Ok(()));
        let before = system::allocations();
        let heap = Perseq::new();
        // SAFETY: as in `use_once`.
        let object = unsafe { heap.alloc(LAYOUT) };
        let after = system::allocations();
        assert!(!object.is_null());
        assert_eq!(after, before);
        // SAFETY: as in `use_once`.
        unsafe { heap.dealloc(object, LAYOUT) };
    });
}

mod system {
    //! The system's allocator, counted per thread.

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

    /// Calls by this thread.
    pub fn allocations() -> u64 {
        COUNT.get()
    }

    struct Counted;

    #[global_allocator]
    static GLOBAL: Counted = Counted;

    // SAFETY: the system's allocator, unchanged.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            COUNT.set(COUNT.get() + 1);
            // SAFETY: by our own contract.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: by our own contract.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

/// A thread that only asks for the limits, or sets them, reads the environment; another that allocates meanwhile waits
/// for it, and does not decide without it.
#[test]
fn the_environment_is_read_before_anything_is_decided() {
    let test = "the_environment_is_read_before_anything_is_decided";
    if kit::role().is_none() {
        for _ in 0..20 {
            let mut child = Child::of(test, "read");
            // Many, so that reading takes a while; ours is the last.
            for number in 0..3000 {
                child = child.env(&format!("A_VARIABLE_{number}"), "of another program");
            }
            child.mode(Mode::Central).run().passed();
        }
        return;
    }
    let ready = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ready.wait();
            let _ = perseq::limits();
        });
        ready.wait();
        std::thread::sleep(std::time::Duration::from_micros(20));
        assert_eq!(active_mode().active, Mode::Central);
    });
}
