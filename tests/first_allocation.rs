//! The first allocation: forks in the middle of it, and memory that fails just then.
//!
//! The test program itself runs on the system's allocator, so that perseq has decided nothing until a test asks it for
//! memory: in a forked child, and so as often as it likes.

mod kit;

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, c_char};
use std::sync::Barrier;
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
            while use_heap() {
                if stop.load(SeqCst) {
                    break;
                }
            }
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
    kit::reap(kit::fork(40, || {
        assert!(use_heap(), "memory");
        beside_a_user(Duration::ZERO, || (0..3).for_each(|_| kit::reap(kit::fork(20, || assert!(use_heap())))));
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

/// A block full of one byte.
type Block = (*mut u8, Layout, u8);

fn is_itself((start, layout, byte): Block, bytes: usize) -> bool {
    // SAFETY: the block is live and has at least so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(start, bytes.min(layout.size())) };
    bytes.chunks(4096).all(|chunk| *chunk == [byte; 4096][..chunk.len()])
}

/// Small and large, aligned, zeroed, resized over all borders, all freed in the end. Returns how many calls failed;
/// whatever failed, the rest is whole. Takes nothing from the system's allocator.
fn every_path(held: &mut Vec<Block>) -> usize {
    let mut failed = 0;
    let full = |start: *mut u8, layout: Layout, byte: u8| {
        // SAFETY: allocated a moment ago with this layout.
        unsafe { start.write_bytes(byte, layout.size()) };
        (start, layout, byte)
    };
    for round in 0..3usize {
        for (index, size) in [8, 40, 500, 3000, 9000, 30_000, 33_000, 70_000, 300_000, 700_000].into_iter().enumerate()
        {
            for turn in 0..(40_000 / size).clamp(2, 30) {
                let layout = layout(size + round, if turn % 5 == 4 { 4096 } else { 8 });
                // SAFETY: the size is not 0.
                let start = unsafe { if turn % 2 == 0 { HEAP.alloc(layout) } else { HEAP.alloc_zeroed(layout) } };
                if start.is_null() {
                    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
                    failed += 1;
                    continue;
                }
                assert!((start as usize).is_multiple_of(layout.align()));
                assert!(turn % 2 == 0 || is_itself((start, layout, 0), layout.size()), "zeroes");
                held.push(full(start, layout, (index * 31 + turn) as u8 | 1));
            }
        }
        for (index, block) in held.iter_mut().enumerate().filter(|(index, _)| index % 3 == 0) {
            let ((start, old, byte), size) = (*block, [20, 2500, 36_000, 400_000, 1 << 20][index / 3 % 5]);
            // SAFETY: allocated with this layout.
            let start = unsafe { HEAP.realloc(start, old, size) };
            if start.is_null() {
                failed += 1;
                assert!(is_itself(*block, old.size()), "a block that was not resized");
                continue;
            }
            let new = layout(size, old.align());
            assert!(is_itself((start, new, byte), old.size()), "a block that was resized");
            *block = full(start, new, byte);
        }
        // Half of them now, so that what is free lies in pieces.
        let keep = if round == 2 { 0 } else { held.len() / 2 };
        for (start, layout, byte) in held.drain(keep..) {
            assert!(is_itself((start, layout, byte), layout.size()));
            // SAFETY: allocated with this layout, freed once.
            unsafe { HEAP.dealloc(start, layout) };
        }
    }
    failed
}

fn set_limit(resource: kit::Resource, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads a structure of ours.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "{}", std::io::Error::last_os_error());
}

/// What a line of `/proc/self/status` says, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("kB") << 10
}

/// Two threads use a new heap, with so much more than the process has until both are through, then with all there is.
/// Returns how many calls failed.
fn with_little(resource: kit::Resource, more: u64) -> usize {
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        let users = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut held = Vec::with_capacity(1000);
                barrier.wait();
                barrier.wait();
                let failed = every_path(&mut held);
                barrier.wait();
                barrier.wait();
                let again = every_path(&mut held);
                // A heap that found little address space stays small.
                assert!(again == 0 || perseq::stats().reserved_bytes < 256 << 20, "{more}: memory came back");
                failed
            })
        });
        barrier.wait();
        set_limit(resource, status(if resource == libc::RLIMIT_AS { "VmSize" } else { "VmData" }) + more);
        barrier.wait();
        barrier.wait();
        set_limit(resource, libc::RLIM_INFINITY);
        barrier.wait();
        users.map(|user| user.join().expect("it checks its blocks")).into_iter().sum()
    })
}

/// Whenever the kernel begins to refuse, from the first request for a first allocation on: null, nothing is lost, and all
/// works when there is memory again.
#[test]
fn memory_ends_at_any_moment() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("memory_ends_at_any_moment", "limits").mode(mode).run().passed();
        }
        Child::of("memory_ends_at_any_moment", "limits").env("PERSEQ_HARDENED", "1").run().passed();
        Child::of("memory_ends_at_any_moment", "limits").env("PERSEQ_BACKGROUND", "1").run().passed();
        return;
    }
    const PAGE: u64 = 4096;
    const MIB: u64 = 1 << 20;
    // Memory that may be written, as it is committed: page by page while the first tables are, then in larger steps.
    let writable =
        (0..12).map(|pages| pages * PAGE).chain((1..16).step_by(2).map(|step| step * MIB)).chain([512 * MIB]);
    let space = [0, MIB, 16 * MIB, 40 * MIB, 80 * MIB, 200 * MIB, 4096 * MIB];
    let writable = writable.map(|more| (libc::RLIMIT_DATA, more));
    for (resource, more) in writable.chain(space.map(|more| (libc::RLIMIT_AS, more))) {
        kit::reap(kit::fork(60, || {
            let failed = with_little(resource, more);
            assert!(more > 0 || failed > 0, "nothing was refused");
            assert!(more < 512 * MIB || failed == 0, "{failed} calls failed with {more} bytes");
            perseq::release();
            let stats = perseq::stats();
            assert_eq!((stats.live_small_bytes, stats.live_large_bytes), (0, 0), "{more}: {stats:?}");
        }));
    }
}
