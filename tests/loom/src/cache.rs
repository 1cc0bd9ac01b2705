//! A thread's cache in `perthread-drain`: its owner exchanges a list's array while another thread seizes the cache; the
//! owner ends, another thread is given the cache, while a third seizes it.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use rseq::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use rseq::{Fault, explore};

use crate::gate::{self, Gate};
use crate::lock_order::Rank;
use crate::must_fail;
use crate::sync::Mutex;

/// One list of one cache, as in `front_end/cache.rs`: `base` changes under the lock of the shape, in the same breath as
/// the array that the list is in.
struct Cache {
    gate: Gate,
    shape: Mutex<()>,
    base: AtomicUsize,
    list: UnsafeCell<List>,
    /// Objects that went to the tiers behind.
    given: AtomicUsize,
    owned: AtomicBool,
}

struct List {
    array: usize,
    objects: usize,
}

// SAFETY: that one thread at a time is at the list is what the models show.
unsafe impl Sync for Cache {}

impl Cache {
    fn new() -> Self {
        let cache = Cache {
            gate: Gate::new(),
            shape: Mutex::new(Rank::Shape, ()),
            base: AtomicUsize::new(1),
            list: UnsafeCell::new(List { array: 1, objects: 0 }),
            given: AtomicUsize::new(0),
            owned: AtomicBool::new(true),
        };
        drop((cache.gate.enter(), cache.gate.close(), cache.shape.lock()));
        let _ = (cache.base.load(Relaxed), cache.given.load(Relaxed), cache.owned.load(Relaxed));
        cache
    }

    /// SAFETY of all that follows: as above.
    fn at_list<R>(&self, f: impl FnOnce(&mut List) -> R) -> R {
        self.list.with_mut(|list| f(unsafe { &mut *list }))
    }

    fn push(&self) -> bool {
        self.gate.enter().is_some_and(|_inside| {
            self.at_list(|list| list.objects += 1);
            true
        })
    }

    /// As `exchange`: the owner gives an empty list another array.
    fn exchange(&self, locks: bool) {
        let shape = if locks { Some(self.shape.try_lock()) } else { None };
        if matches!(shape, Some(None)) {
            return; // whoever has the lock is changing the shape
        }
        let old = self.base.load(Relaxed);
        let Some(inside) = self.gate.enter() else { return };
        let replaced = self.at_list(|list| {
            let fits = list.objects == 0 && list.array == old;
            list.array = if fits { old + 1 } else { list.array };
            fits
        });
        drop(inside);
        if replaced {
            self.base.store(old + 1, Relaxed);
        }
    }

    /// As `take`/`seize` and `drain`: by another thread, under the lock of the shape.
    fn seize(&self) {
        let _shape = self.shape.lock();
        let Some(closing) = self.gate.close() else { return };
        assert!(gate::fence());
        if closing.closed() {
            self.drain();
        }
    }

    fn drain(&self) {
        let objects = self.at_list(|list| {
            assert_eq!(list.array, self.base.load(Relaxed), "based: the list is in the array that the base names");
            std::mem::take(&mut list.objects)
        });
        self.given.store(self.given.load(Relaxed) + objects, Relaxed);
    }

    /// As `strip_own`: by the owner at its end, without the gate.
    fn strip_own(&self) {
        let _shape = self.shape.lock();
        self.drain();
    }
}

fn exchange_against_drain(fault: Fault, locks: bool) {
    explore(fault, move || {
        let cache = Arc::new(Cache::new());
        let owner = thread::spawn({
            let cache = cache.clone();
            move || {
                cache.exchange(locks);
                usize::from(cache.push())
            }
        });
        cache.seize();
        let pushed = owner.join().unwrap();
        cache.strip_own();
        assert_eq!(cache.given.load(Relaxed), pushed, "conserved");
    });
}

#[test]
fn an_array_is_exchanged_or_drained() {
    exchange_against_drain(Fault::None, true);
}

#[test]
fn without_the_lock_of_the_shape_the_base_is_another() {
    must_fail("cache::without_the_lock_of_the_shape_the_base_is_another", "based", || {
        exchange_against_drain(Fault::None, false);
    });
}

#[test]
fn without_the_fence_both_are_at_the_list() {
    must_fail("cache::without_the_fence_both_are_at_the_list", "Causality violation", || {
        exchange_against_drain(Fault::NoFence, true);
    });
}

/// `registry.rs`: one spare cache at most.
struct Registry {
    cache: Cache,
    spare: Mutex<()>,
}

/// In which order a thread gives its cache up.
#[derive(Clone, Copy, PartialEq)]
enum Retires {
    EmptiedFirst,
    EmptiedLast,
}

fn retire_against_seize(fault: Fault, retires: Retires) {
    explore(fault, move || {
        let registry = Arc::new(Registry { cache: Cache::new(), spare: Mutex::new(Rank::Registry, ()) });
        drop(registry.spare.lock());
        let ending = thread::spawn({
            let registry = registry.clone();
            move || {
                let pushed = registry.cache.push();
                let retire = || {
                    let _spare = registry.spare.lock();
                    registry.cache.owned.store(false, Relaxed);
                };
                if retires == Retires::EmptiedLast {
                    retire();
                }
                registry.cache.strip_own();
                if retires == Retires::EmptiedFirst {
                    retire();
                }
                usize::from(pushed)
            }
        });
        let next = thread::spawn({
            let registry = registry.clone();
            move || {
                let is_mine = {
                    let _spare = registry.spare.lock();
                    !registry.cache.owned.swap(true, Relaxed)
                };
                if is_mine { usize::from(registry.cache.push()) } else { 0 }
            }
        });
        registry.cache.seize();
        let pushed = ending.join().unwrap() + next.join().unwrap();
        registry.cache.strip_own();
        assert_eq!(registry.cache.given.load(Relaxed), pushed, "conserved");
    });
}

#[test]
fn a_retired_cache_is_the_next_ones() {
    retire_against_seize(Fault::None, Retires::EmptiedFirst);
}

#[test]
fn emptied_last_two_are_at_the_list() {
    must_fail("cache::emptied_last_two_are_at_the_list", "Causality violation", || {
        retire_against_seize(Fault::None, Retires::EmptiedLast);
    });
}
