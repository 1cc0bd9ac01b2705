//! A door that its owner passes with plain loads and stores, and that another thread can close at the price of a fence.
//!
//! ```text
//! owner                                another
//! inside = 1                           closed = 1
//! (nothing: the fence is elsewhere)    membarrier: every thread of the process executes a full fence
//! closed?  yes: inside = 0, turn back  inside?  yes: closed = 0, give up
//! ...                                  ...
//! inside = 0                           closed = 0
//! ```
//!
//! This is Dekker's handshake with the cost on one side. The processor may let the owner's load of `closed` pass its
//! store of `inside`, so both sides could miss each other. The membarrier makes every running thread execute a full
//! fence after
//! `closed` was written: an owner whose load came before it has its store visible when `inside` is read, and one whose
//! load comes after it sees `closed`. That holds on processors that reorder everything, as arm64's do: the fence comes
//! between two instructions of the owner's, and orders all before it against all after it.
//!
//! A lock instead would cost the owner two atomic read-modify-writes per operation. A restartable sequence would do as
//! well, but would tie the mode to rseq, and the mode is to differ from `percpu` and `perthread` in one thing only.
//!
//! An owner that is preempted inside keeps others out for that long. Others do not wait: a thread that is inside is not
//! idle.

use crate::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    compiler_fence,
};

/// See the module.
pub struct Gate {
    /// Written by the owner alone.
    inside: AtomicU32,
    /// Written by others, one at a time.
    closed: AtomicU32,
}

impl Gate {
    pub const fn new() -> Self {
        Gate { inside: AtomicU32::new(0), closed: AtomicU32::new(0) }
    }

    /// The owner enters. `None`: somebody else is inside.
    ///
    /// Only the owner may call this, and not while it is inside.
    #[inline(always)]
    pub fn enter(&self) -> Option<Inside<'_>> {
        self.inside.store(1, Relaxed);
        // The compiler keeps the order; the processor is made to by the other side's membarrier.
        compiler_fence(SeqCst);
        // Acquire pairs with the release that opens: we see what was done behind the closed gate.
        if self.closed.load(Acquire) != 0 {
            // This visit changed nothing, but its 0 replaces the 0 of our last visit. A thread that closes the gate
            // reads only this one, and has to see what the last visit did.
            self.inside.store(0, Release);
            return None;
        }
        Some(Inside(self))
    }

    /// Lets the owner in no more. The owner may be inside now: a [`fence`] comes next, one for any number of gates, and
    /// then [`Closing::closed`]. `None` if the gate is closed already.
    pub fn close(&self) -> Option<Closing<'_>> {
        // Made only then: it opens the gate when it is dropped.
        (self.closed.swap(1, Acquire) == 0).then(|| Closing(self))
    }

    /// Forgets an owner that does not exist any more, after a fork.
    pub fn reset(&self) {
        self.inside.store(0, Relaxed);
    }
}

/// The owner is inside while this lives.
pub struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.inside.store(0, Release); // pairs with `close`
    }
}

/// The owner cannot enter while this lives.
pub struct Closing<'a>(&'a Gate);

impl Closing<'_> {
    /// Whether the owner is outside. After a [`fence`] that came after `close`.
    pub fn closed(&self) -> bool {
        self.0.inside.load(Acquire) == 0 // pairs with the owner's release: we see what it did inside
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.closed.store(0, Release); // pairs with `enter`
    }
}

/// Makes every running thread of the process execute a full fence. False if the kernel refuses.
pub fn fence() -> bool {
    rseq::fence::memory().is_ok()
}

/// Asks the kernel to let this process close gates (Linux 4.14). Idempotent; inherited across fork. The error is the
/// errno with which it refused.
pub fn register() -> Result<(), i32> {
    rseq::fence::register_memory()
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::{Duration, Instant};

    #[test]
    fn who_finds_it_closed_leaves_it_closed() {
        let gate = Gate::new();
        let closing = gate.close().expect("it is open");
        assert!(gate.close().is_none() && gate.close().is_none() && gate.enter().is_none());
        drop(closing);
        assert!(gate.enter().is_some() && gate.close().is_some());
    }

    /// How the other side closes.
    #[derive(Clone, Copy, PartialEq)]
    enum Variant {
        Right,
        /// Without the fence.
        Unfenced,
        /// Without a look at whether the owner is inside.
        Unlooked,
    }

    /// Both sides add to a counter by a load and a store, which loses additions if they ever meet. Runs until one is
    /// lost, for `limit` at most. Additions lost, and closings.
    fn additions_lost(variant: Variant, limit: Duration) -> (u64, u64) {
        register().expect("Linux 4.14 or later");
        let (gate, count, stop) = (Gate::new(), AtomicU64::new(0), AtomicBool::new(false));
        let turn = |pause: usize| {
            let before = count.load(Relaxed);
            (0..pause).for_each(|_| core::hint::spin_loop());
            count.store(before + 1, Relaxed);
        };
        let start = Instant::now();
        let (mut entered, mut closed) = (0, 0);
        std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let mut entered = 0_u64;
                while !stop.load(Relaxed) {
                    if let Some(_inside) = gate.enter() {
                        // Longer than the fence takes, so as to be met inside; what a missing fence reorders is the
                        // first moment.
                        turn(if variant == Variant::Unlooked { 2000 } else { 0 });
                        entered += 1;
                    }
                }
                entered
            });
            // In rounds, so that what was lost is seen soon.
            while start.elapsed() < limit {
                for _ in 0..100 {
                    let closing = gate.close().expect("nobody else closes it");
                    let fenced = variant == Variant::Unfenced || fence();
                    if fenced && (variant == Variant::Unlooked || closing.closed()) {
                        turn(20);
                        closed += 1;
                    }
                }
            }
            stop.store(true, Relaxed);
            entered = owner.join().expect("it only counts");
        });
        (entered + closed - count.load(Relaxed), closed)
    }

    /// In short runs, until something is lost.
    fn lost_within(variant: Variant, limit: Duration) -> u64 {
        let start = Instant::now();
        while start.elapsed() < limit {
            let (lost, _) = additions_lost(variant, Duration::from_millis(100));
            if lost > 0 {
                return lost;
            }
        }
        0
    }

    fn one_cpu_only() -> bool {
        let one = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        if one {
            crate::absence::not_tested("second-cpu", "two sides of a gate at once", "one CPU only");
        }
        one
    }

    #[test]
    fn nothing_is_lost() {
        let (lost, closed) = additions_lost(Variant::Right, Duration::from_secs(2));
        assert_eq!(lost, 0);
        assert_ne!(closed, 0, "the gate was never closed");
    }

    /// The control: without the fence, processors do reorder, and the test above would see it.
    #[test]
    fn without_the_fence_additions_are_lost() {
        if !one_cpu_only() {
            assert_ne!(lost_within(Variant::Unfenced, Duration::from_secs(60)), 0);
        }
    }

    #[test]
    fn without_a_look_additions_are_lost() {
        if !one_cpu_only() {
            assert_ne!(lost_within(Variant::Unlooked, Duration::from_secs(60)), 0);
        }
    }

    #[test]
    fn an_owner_inside_keeps_others_out() {
        register().expect("Linux 4.14 or later");
        let gate = Gate::new();
        let inside = gate.enter().expect("open");
        let closing = gate.close().expect("open");
        assert!(fence() && !closing.closed());
        drop(inside);
        assert!(fence() && closing.closed());
        assert!(gate.enter().is_none() && gate.close().is_none());
        drop(closing);
        assert!(gate.enter().is_some());
    }
}
