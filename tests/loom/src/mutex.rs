//! The lock: one holder at a time, who sees what the last one did, and nobody sleeps for ever.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use rseq::{Fault, explore};

use crate::lock_order::Rank;
use crate::must_fail;
use crate::sync::Mutex;

struct Counter {
    lock: Mutex<()>,
    /// Beside the lock's own value, so that loom sees who is at it.
    count: UnsafeCell<u32>,
}

// SAFETY: that the count is used under the lock only is what the model shows.
unsafe impl Sync for Counter {}

fn add(counter: &Counter) {
    let _guard = counter.lock.lock();
    // SAFETY: as above.
    counter.count.with_mut(|count| unsafe { *count += 1 });
}

fn model(fault: Fault, others: usize) {
    explore(fault, move || {
        let counter = Arc::new(Counter { lock: Mutex::new(Rank::Shape, ()), count: UnsafeCell::new(0) });
        add(&counter);
        let threads: Vec<_> = (0..others)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || add(&counter))
            })
            .collect();
        if let Some(_guard) = counter.lock.try_lock() {
            // SAFETY: as above.
            counter.count.with_mut(|count| unsafe { *count += 10 });
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // SAFETY: as above.
        let count = counter.count.with(|count| unsafe { *count }) as usize;
        assert!(count == 1 + others || count == 11 + others);
    });
}

#[test]
fn one_holder_at_a_time() {
    model(Fault::None, 2);
}

#[test]
fn without_a_wake_somebody_sleeps_for_ever() {
    must_fail("mutex::without_a_wake_somebody_sleeps_for_ever", "deadlock", || {
        model(Fault::NoWake, 2);
    });
}

#[test]
fn without_orderings_the_next_holder_sees_less() {
    must_fail("mutex::without_orderings_the_next_holder_sees_less", "Causality violation", || {
        model(Fault::Relaxed, 2);
    });
}
