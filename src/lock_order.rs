//! In which order locks are taken. Debug builds check it; release builds carry nothing of it.
//!
//! A thread that waits for a lock holds only locks of lower ranks. Trying a lock without waiting cannot close a circle,
//! so it is not checked, but what was got that way counts as held. Locks of one rank may be held together by a thread
//! that has the right to reclaim, which one thread has at a time: by fork, and by who takes several caches.
//!
//! Who holds what is written to a table of threads that hold something now: thread-local storage would need code per
//! architecture, or an allocation.

/// The ranks, in the order of taking. Each lock's is given where it is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[cfg_attr(not(debug_assertions), allow(dead_code))]
pub enum Rank {
    /// The decision about the process.
    Decision,
    /// Reading the environment.
    Environment,
    /// The right to take caches from their owners.
    Reclaim,
    /// The registry of caches.
    Registry,
    /// A cache's shape.
    Shape,
    /// A cache's lists, in the modes that lock them.
    Lists,
    /// The quarantine of the hardened mode.
    Quarantine,
    /// A class's transfer cache.
    TransferCache,
    /// A class's central free list.
    CentralFreeList,
    /// Spare arrays.
    SpareArrays,
    /// The allocator's own memory.
    Metadata,
    /// Giving memory back to the kernel.
    Release,
    /// The page heap.
    PageHeap,
    /// An object cache's depot: a program's, so not taken across fork, and nothing is allocated under it.
    Depot,
}

#[cfg(debug_assertions)]
pub use checked::{Order, assert_all_held, assert_none_held, forget_other_threads};
#[cfg(not(debug_assertions))]
pub use unchecked::{Order, assert_all_held, assert_none_held, forget_other_threads};

#[cfg(not(debug_assertions))]
mod unchecked {
    use super::Rank;

    /// A lock's place in the order.
    pub struct Order;

    impl Order {
        pub const fn new(_: Rank) -> Self {
            Order
        }
        #[inline(always)]
        pub fn before_waiting(&self) {}
        #[inline(always)]
        pub fn before_waiting_for_another(&self) {}
        #[inline(always)]
        pub fn taken(&self) {}
        #[inline(always)]
        pub fn giving_up(&self) {}
    }

    pub fn assert_all_held(_: bool) {}
    #[inline(always)]
    pub fn assert_none_held(_: &[&str]) {}
    pub fn forget_other_threads() {}
}

#[cfg(debug_assertions)]
mod checked {
    use core::sync::atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    };

    use super::Rank;
    use crate::message::broken;

    /// A lock's place in the order.
    pub struct Order(Rank);

    impl Order {
        pub const fn new(rank: Rank) -> Self {
            Order(rank)
        }

        /// Aborts if this thread holds a lock of this rank or a later one.
        pub fn before_waiting(&self) {
            self.check(held_by_this_thread() >> self.0 as u32);
        }

        /// Aborts if this thread holds a lock of a later rank.
        pub fn before_waiting_for_another(&self) {
            self.check(held_by_this_thread() >> (self.0 as u32 + 1));
        }

        fn check(&self, later: u32) {
            if later != 0 {
                broken(&[
                    "lock order: ",
                    name(self.0),
                    " is waited for while a lock of the same or a later rank is held",
                ]);
            }
        }

        pub fn taken(&self) {
            let Some(holder) = holder() else { broken(&["lock order: too many threads hold locks for the table"]) };
            holder.ranks.store(holder.ranks.load(Relaxed) | 1 << self.0 as u32, Relaxed);
        }

        /// Before the lock is free, so that no entry outlives a fork by accident.
        pub fn giving_up(&self) {
            let Some(holder) = holder() else { return };
            let ranks = holder.ranks.load(Relaxed) & !(1 << self.0 as u32);
            holder.ranks.store(ranks, Relaxed);
            if ranks == 0 {
                holder.thread.store(0, Release); // pairs with the claim in `holder`
            }
        }
    }

    fn name(rank: Rank) -> &'static str {
        match rank {
            Rank::Decision => "the decision",
            Rank::Environment => "the environment",
            Rank::Reclaim => "the right to reclaim",
            Rank::Registry => "the registry",
            Rank::Shape => "a cache's shape",
            Rank::Lists => "a cache's lists",
            Rank::Quarantine => "the quarantine",
            Rank::TransferCache => "a transfer cache",
            Rank::CentralFreeList => "a central free list",
            Rank::SpareArrays => "the spare arrays",
            Rank::Metadata => "metadata",
            Rank::Release => "the right to release",
            Rank::PageHeap => "the page heap",
            Rank::Depot => "an object cache's depot",
        }
    }

    const HOLDERS: usize = 4096;
    const PROBES: usize = 32;

    /// A thread that holds locks, and the bits of their ranks. Only that thread changes its entry.
    struct Holder {
        thread: AtomicUsize,
        ranks: AtomicU32,
    }

    static TABLE: [Holder; HOLDERS] =
        [const { Holder { thread: AtomicUsize::new(0), ranks: AtomicU32::new(0) } }; HOLDERS];

    fn this_thread() -> usize {
        // SAFETY: pthread_self has no preconditions.
        unsafe { libc::pthread_self() as usize }
    }

    fn places(thread: usize) -> impl Iterator<Item = &'static Holder> {
        let first = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40; // Fibonacci hashing: descriptors are far apart
        (first..first + PROBES).map(|place| &TABLE[place % HOLDERS])
    }

    fn held_by_this_thread() -> u32 {
        let thread = this_thread();
        places(thread)
            .find(|holder| holder.thread.load(Relaxed) == thread)
            .map_or(0, |holder| holder.ranks.load(Relaxed))
    }

    /// This thread's entry, made if there is none.
    fn holder() -> Option<&'static Holder> {
        let thread = this_thread();
        places(thread).find(|holder| holder.thread.load(Relaxed) == thread).or_else(|| {
            places(thread).find(|holder| holder.thread.compare_exchange(0, thread, Acquire, Relaxed).is_ok())
        })
    }

    /// Asserts that the calling thread holds a lock of every rank, those of caches if there are caches: the fork
    /// handlers forgot none.
    pub fn assert_all_held(with_caches: bool) {
        let mut expected = (1 << (Rank::PageHeap as u32 + 1)) - 1;
        if !with_caches {
            expected &= !(1 << Rank::Shape as u32 | 1 << Rank::Lists as u32);
        }
        if held_by_this_thread() != expected {
            broken(&["lock order: fork does not take a lock of every rank"]);
        }
    }

    /// Asserts that the calling thread holds no lock, before it ends the process for a reason of the program's.
    pub fn assert_none_held(reason: &[&str]) {
        let held = held_by_this_thread();
        if held != 0 {
            let mut parts = ["lock order: ", "", " is held where the process ends: ", "", "", "", "", ""];
            parts[1] = RANKS.iter().find(|rank| held >> **rank as u32 & 1 != 0).map_or("a lock", |rank| name(*rank));
            for (place, part) in parts[3..].iter_mut().zip(reason) {
                *place = part;
            }
            broken(&parts);
        }
    }

    const RANKS: [Rank; Rank::Depot as usize + 1] = [
        Rank::Decision,
        Rank::Environment,
        Rank::Reclaim,
        Rank::Registry,
        Rank::Shape,
        Rank::Lists,
        Rank::Quarantine,
        Rank::TransferCache,
        Rank::CentralFreeList,
        Rank::SpareArrays,
        Rank::Metadata,
        Rank::Release,
        Rank::PageHeap,
        Rank::Depot,
    ];

    /// In a fork's child.
    pub fn forget_other_threads() {
        let thread = this_thread();
        for holder in TABLE.iter().filter(|holder| holder.thread.load(Relaxed) != thread) {
            holder.ranks.store(0, Relaxed);
            holder.thread.store(0, Relaxed);
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::Rank;
    use crate::aborting::must_abort;
    use crate::fatal::fatal;
    use crate::sync::Mutex;

    static LOW: Mutex<()> = Mutex::new(Rank::Registry, ());
    static HIGH: Mutex<()> = Mutex::new(Rank::PageHeap, ());
    static HIGH_TOO: Mutex<()> = Mutex::new(Rank::PageHeap, ());

    #[test]
    fn an_inversion_aborts() {
        must_abort("lock_order::tests::an_inversion_aborts", "lock order: ", || {
            let _high = HIGH.lock();
            let _low = LOW.lock();
        });
    }

    #[test]
    fn two_of_one_rank_abort() {
        must_abort("lock_order::tests::two_of_one_rank_abort", "lock order: ", || {
            let _high = HIGH.lock();
            let _other = HIGH_TOO.lock();
        });
    }

    #[test]
    fn what_was_tried_counts_as_held() {
        must_abort("lock_order::tests::what_was_tried_counts_as_held", "lock order: ", || {
            let _high = HIGH.try_lock().expect("free");
            let _low = LOW.lock();
        });
    }

    #[test]
    fn the_end_with_a_lock_held_is_ours() {
        let line = "lock order: the registry is held where the process ends: double free";
        must_abort("lock_order::tests::the_end_with_a_lock_held_is_ours", line, || {
            let _low = LOW.lock();
            fatal(&["double free"]);
        });
    }

    #[test]
    fn the_right_order_and_again() {
        for _ in 0..3 {
            let low = LOW.lock();
            let high = HIGH.lock();
            drop(low);
            assert!(LOW.try_lock().is_some(), "trying is allowed in any order");
            drop(high);
            drop(LOW.lock());
        }
    }
}
