//! The first allocation: forks in the middle of it, and memory that fails just then.
//!
//! The test program itself runs on the system's allocator, so that perseq has decided nothing until a test asks it for
//! memory: in a forked child, and so as often as it likes.

mod kit;

use std::alloc::GlobalAlloc;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use kit::Child;
use kit::object::layout;
use perseq::Mode;

static HEAP: perseq::Perseq = perseq::Perseq::new();

/// Allocates, writes and frees. False if there is no memory.
fn use_heap() -> bool {
    [24, 3000, 50_000].into_iter().all(|size| {
        let layout = layout(size, 8);
        // SAFETY: the size is not 0; freed once, with the same layout.
        unsafe {
            let block = HEAP.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0x5a, size);
                HEAP.dealloc(block, layout);
            }
            !block.is_null()
        }
    })
}

/// Says so when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Lets `during` run after another thread has begun to use the heap, `delay` later.
fn beside_a_user(delay: Duration, during: impl FnOnce()) {
    let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            begun.store(true, SeqCst);
            while use_heap() && !stop.load(SeqCst) {}
        });
        while !begun.load(SeqCst) {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        {
            let _stop = Stop(&stop);
            during();
        }
        user.join().expect("it uses the heap only");
    });
}

/// Forks, and the child uses the heap at once and forks in turn.
fn fork_and_use() {
    kit::reap(kit::fork(10, || {
        assert!(use_heap(), "memory");
        beside_a_user(Duration::ZERO, || (0..3).for_each(|_| kit::reap(kit::fork(5, || assert!(use_heap())))));
    }));
}

/// Makes the environment so long that reading it takes a while.
fn read_environment_slowly() {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    const VARIABLE: &CStr = c"PERSEQ_TEST_NOTHING=1";
    // SAFETY: no other thread uses the environment now.
    let mut variables: Vec<_> = unsafe {
        let first = environ;
        (0..).map(|index| *first.add(index)).take_while(|variable| !variable.is_null()).collect()
    };
    variables.resize(1_000_000, VARIABLE.as_ptr());
    variables.push(std::ptr::null());
    // SAFETY: a list of C strings that lives for ever, ended by null.
    unsafe { environ = variables.leak().as_ptr() };
}

/// Whatever another thread is at, be it the very first thing, a forked child can allocate.
#[test]
fn fork_in_the_middle() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("fork_in_the_middle", "forks").mode(mode).run().passed();
        }
        return;
    }
    for microseconds in (0..500).step_by(20) {
        kit::reap(kit::fork(60, || beside_a_user(Duration::from_micros(microseconds), fork_and_use)));
    }
    for milliseconds in (0..18).step_by(6) {
        kit::reap(kit::fork(60, || {
            read_environment_slowly();
            beside_a_user(Duration::from_millis(milliseconds), fork_and_use);
        }));
    }
}
