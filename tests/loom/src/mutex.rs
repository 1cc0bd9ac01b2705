//! The lock: one holder at a time, who sees what the last one did, and nobody sleeps for ever, not for a holder that does
//! not exist either.

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

/// A thread waits for a lock whose holder never gives it back. At any moment of that, a signal handler of the waiting
/// thread forks: this is the child. It `marks` the lock, and the call of the futex is made again that it interrupted.
fn model_of_a_child(marks: bool, wait: fn(&Mutex<()>) -> bool) {
    explore(Fault::None, move || {
        let lock = Arc::new(Mutex::new(Rank::Shape, ()));
        let held = lock.clone();
        thread::spawn(move || std::mem::forget(held.lock())).join().unwrap();
        let waiting = lock.clone();
        let waiter = thread::spawn(move || wait(&waiting));
        if marks {
            // SAFETY: the handler's thread stands still meanwhile, or in the model does what it may do then.
            let whole = unsafe { lock.bare().give_in_child() };
            assert!(!whole, "who holds it does not exist");
        }
        lock.bare().interrupt();
        assert!(waiter.join().unwrap(), "it goes without the lock");
    });
}

#[test]
fn nobody_waits_for_who_does_not_exist() {
    model_of_a_child(true, |lock| lock.lock_unless_orphaned().is_none());
    model_of_a_child(true, |lock| lock.lock_unless_forking().is_none());
}

#[test]
fn without_the_mark_a_child_waits_for_ever() {
    must_fail("mutex::without_the_mark_a_child_waits_for_ever", "deadlock", || {
        model_of_a_child(false, |lock| lock.lock_unless_orphaned().is_none());
    });
}

#[test]
fn who_cannot_do_without_ends_with_a_word() {
    must_fail("mutex::who_cannot_do_without_ends_with_a_word", "a signal handler forked", || {
        model_of_a_child(true, |lock| {
            let _guard = lock.lock();
            true
        });
    });
}
