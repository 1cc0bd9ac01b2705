//! Threads that pass blocks to one another by atomics alone, so that a sanitizer sees all that orders them:
//! `tests/sanitizers/run.sh` runs this under ThreadSanitizer, in the modes without sequences, which it cannot see.

mod kit;

use std::alloc::{Layout, alloc, dealloc};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};
use std::time::Instant;

use kit::Child;
use kit::random::Random;
use perseq::Mode;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const SIZES: [usize; 8] = [8, 24, 64, 200, 700, 4096, 20_000, 100_000];
const SLOTS: usize = 64;
const THREADS: usize = 4;

static STOP: AtomicBool = AtomicBool::new(false);
static SLOT: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];

fn layout(slot: usize) -> Layout {
    Layout::from_size_align(SIZES[slot % SIZES.len()], 8).expect("a layout")
}

/// Puts a new block of `layout`, full of one byte, into the slot and frees the one that was there.
fn exchange(slot: usize, byte: u8) {
    let layout = layout(slot);
    // SAFETY: the size is not 0; a block in a slot is whole, of the slot's layout, and its taker's.
    unsafe {
        let block = alloc(layout);
        assert!(!block.is_null());
        block.write_bytes(byte, layout.size());
        let other = SLOT[slot].swap(block, AcqRel);
        if !other.is_null() {
            assert_eq!(*other, *other.add(layout.size() - 1), "a block that two threads have");
            dealloc(other, layout);
        }
    }
}

fn empty() {
    for (slot, place) in SLOT.iter().enumerate() {
        let block = place.swap(std::ptr::null_mut(), AcqRel);
        if !block.is_null() {
            // SAFETY: as in `exchange`.
            unsafe { dealloc(block, layout(slot)) };
        }
    }
}

#[test]
fn blocks_pass_between_threads() {
    const TEST: &str = "blocks_pass_between_threads";
    if kit::role().is_none() {
        let sanitized = std::env::var_os("PERSEQ_TEST_SANITIZED").is_some();
        for mode in Mode::ALL.into_iter().filter(|mode| !(sanitized && mode.uses_sequences())) {
            Child::of(TEST, "small").mode(mode).env("PERSEQ_CACHE_BYTES", "64K").run().passed();
            let shared = Child::of(TEST, "shared").mode(mode).env("PERSEQ_TOTAL_BYTES", "128K");
            shared.env("PERSEQ_IDLE_DRAIN", "1").env("PERSEQ_RELEASE", "1").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let time = kit::duration(1.0);
    // Joined one by one: a scope's end does not wait for the ends of its threads, where their caches are emptied.
    let mut threads: Vec<_> = (0..THREADS)
        .map(|number| {
            std::thread::spawn(move || {
                let mut random = Random::stream(number as u64);
                while !STOP.load(Relaxed) {
                    (0..100).for_each(|_| exchange(random.below(SLOTS), number as u8));
                }
            })
        })
        .collect();
    threads.push(std::thread::spawn(|| {
        while !STOP.load(Relaxed) {
            std::thread::spawn(|| exchange(1, 9)).join().expect("it only exchanges");
            perseq::drain();
            perseq::release();
            assert!(perseq::stats().live_small_bytes < 1 << 40);
        }
    }));
    let start = Instant::now();
    while start.elapsed() < time {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    STOP.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a block was two threads'"));
    empty();
    perseq::drain();
    perseq::check();
}

/// The control, where there is a sanitizer (`tests/sanitizers/run.sh`): two threads write to one word.
#[test]
fn a_race_is_reported() {
    const TEST: &str = "a_race_is_reported";
    struct Word(std::cell::UnsafeCell<u64>);
    // SAFETY: not sound, which is the test.
    unsafe impl Sync for Word {}
    static WORD: Word = Word(std::cell::UnsafeCell::new(0));
    if std::env::var_os("PERSEQ_TEST_SANITIZED").is_none() {
        return;
    }
    if kit::role().is_none() {
        let raced = Child::of(TEST, "race").mode(Mode::Central).run();
        assert!(!raced.status.success() && raced.stderr.contains("data race"), "{raced}");
        return;
    }
    // Both are there before either writes: else the allocator's locks could order one's writes before the other's.
    static THERE: AtomicUsize = AtomicUsize::new(0);
    let threads = [1, 2].map(|byte| {
        std::thread::spawn(move || {
            THERE.fetch_add(1, Relaxed);
            while THERE.load(Relaxed) < 2 {
                std::thread::yield_now();
            }
            // SAFETY: as above.
            (0..1000).for_each(|_| unsafe { WORD.0.get().write_volatile(byte) });
        })
    });
    threads.into_iter().for_each(|thread| thread.join().expect("it only writes"));
}
