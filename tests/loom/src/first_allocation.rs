//! The first allocation: several threads find nothing decided, one decides, and all read the same decision.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use rseq::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use rseq::{Fault, explore};

use crate::lock_order::Rank;
use crate::must_fail;
use crate::sync::Mutex;

/// As in `decided.rs`, `way.rs` and `process/start.rs`.
struct Process {
    ready: AtomicBool,
    deciding: Mutex<()>,
    decision: UnsafeCell<usize>,
    /// What the fast path reads, with nothing behind it.
    word: AtomicUsize,
    decisions: AtomicUsize,
}

// SAFETY: that the decision is written before it is read is what the model shows.
unsafe impl Sync for Process {}

impl Process {
    fn initialize(&self, mine: usize, locks: bool) {
        if self.ready.load(Acquire) {
            return;
        }
        let _deciding = locks.then(|| self.deciding.lock());
        if self.ready.load(Acquire) {
            return;
        }
        // SAFETY: as above.
        self.decision.with_mut(|decision| unsafe { *decision = mine });
        self.decisions.store(self.decisions.load(Relaxed) + 1, Relaxed);
        self.word.store(mine, Release);
        self.ready.store(true, Release);
    }

    /// An allocation: the fast path, if the word is there, else the slow one.
    fn allocate(&self, mine: usize, locks: bool) -> usize {
        let word = self.word.load(Relaxed);
        if word != 0 {
            return word; // a word is all that is read
        }
        self.initialize(mine, locks);
        // SAFETY: as above.
        self.decision.with(|decision| unsafe { *decision })
    }
}

fn model(fault: Fault, locks: bool) {
    explore(fault, move || {
        let process = Arc::new(Process {
            ready: AtomicBool::new(false),
            deciding: Mutex::new(Rank::Decision, ()),
            decision: UnsafeCell::new(0),
            word: AtomicUsize::new(0),
            decisions: AtomicUsize::new(0),
        });
        drop(process.deciding.lock());
        let _ = (process.ready.load(Relaxed), process.word.load(Relaxed), process.decisions.load(Relaxed));
        let threads = [1, 2].map(|mine| {
            let process = process.clone();
            thread::spawn(move || process.allocate(mine, locks))
        });
        let mine = process.allocate(3, locks);
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        assert!(one == mine && other == mine, "{one}, {other} and {mine} were decided");
        assert_eq!(process.decisions.load(Relaxed), 1);
    });
}

#[test]
fn one_decision_for_all() {
    model(Fault::None, true);
}

#[test]
fn without_the_lock_several() {
    must_fail("first_allocation::without_the_lock_several", "panicked", || {
        model(Fault::None, false);
    });
}

#[test]
fn without_orderings_half_a_decision_is_read() {
    must_fail("first_allocation::without_orderings_half_a_decision_is_read", "Causality violation", || {
        model(Fault::Relaxed, true);
    });
}
