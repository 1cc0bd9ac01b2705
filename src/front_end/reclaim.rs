//! Caches in the hands of others than their owners: emptied on request, emptied because they are idle, and made to
//! give budget to one that misses.
//!
//! # Idle caches
//!
//! A cache whose lists are found alike, and without a miss between, for a whole period is emptied and loses its
//! arrays: the cache of a thread that sleeps, of a CPU that went offline or that no thread may use any more, or of one that
//! the program has no work for. A cache that is in use may be found alike, too, if it gives and takes back the same
//! few objects and never misses; then it loses them once a period, and fetches them again.
//!
//! No thread waits for time to pass. Every [`MISSES_PER_LOOK`] misses a cache's user reads the coarse clock; when half a
//! period has passed since the last look, it looks at all caches. So an idle cache is emptied between one period and
//! one and a half after its last use, by whoever is still active; where nobody misses, nobody is in need.
//!
//! # Budget
//!
//! Under an equal total, a cache that misses and finds nothing left to reserve asks the other caches in turn, as a list
//! in need of an array asks the other lists: one that has not missed since it was last asked gives, and so does
//! one that has more than its share, if the one that asks has less.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rseq::Stopping;

use crate::config::{IDLE_DRAIN_MS, MISSES_PER_PLEA};
use crate::front_end::budget;
use crate::front_end::cache::{Cache, Shape};
use crate::front_end::gate::{self, Closing};
use crate::front_end::lists::{Exclusive, Lists};
use crate::front_end::registry;
use crate::front_end::thread;
use crate::lock_order::Rank;
use crate::misuse::{Misuse, judge};
use crate::os;
use crate::sync::{Guard, Mutex};
use crate::way::Way;

#[cfg(doc)]
use crate::config::MISSES_PER_LOOK;

/// Milliseconds; 0 for never.
static PERIOD: AtomicU64 = AtomicU64::new(IDLE_DRAIN_MS);
/// When to look for idle caches next, by the coarse clock, in milliseconds.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(0);

/// Where the next search for budget begins.
struct Hand(*const Cache);

// SAFETY: null or a cache, which lives for ever and is shared by all threads.
unsafe impl Send for Hand {}

/// The right to take caches from their owners: one thread has it at a time. A cache is another's for as long as that
/// thread holds this lock, so none is at the time of a fork.
static RIGHT: Mutex<Hand> = Mutex::new(Rank::Reclaim, Hand(ptr::null()));

pub(crate) fn mutex() -> &'static Mutex<impl Sized> {
    &RIGHT
}

/// Idle caches are emptied after `period` milliseconds; `None`: never.
pub fn set_idle_drain(period: Option<u64>) {
    PERIOD.store(period.unwrap_or(0), Relaxed);
}

/// Caches taken together at the price of one fence; their owners do without until their turn is over.
const TOGETHER: usize = 32;

/// A cache whose shape the thread that has the right has locked.
type Held = Option<(&'static Cache, Guard<'static, Shape>)>;

/// Takes caches from their owners, all with one fence, and runs `f` for each; then that one goes on. Those that cannot be
/// had now are left as they are: the owner is at it, the kernel refuses the fence, or the mode does not allow it.
fn take(held: &mut [Held], mut f: impl FnMut(Exclusive, &mut Shape)) {
    let mut f = |(cache, mut shape): (&'static Cache, Guard<'static, Shape>)| {
        // SAFETY: each way below keeps everybody else off the lists while this runs.
        f(unsafe { Exclusive::new(cache) }, &mut shape);
    };
    match Way::now() {
        Way::Cpu(_) | Way::Cid(_) => {
            let mut stopping = Stopping::new();
            for (cache, _) in held.iter().flatten() {
                // Nobody else stops slabs, so none is held; one that was not started has nothing to take.
                _ = stopping.add(&cache.slab);
            }
            // The kernel granted fences at the start. If it refuses one now, the caches go on, full as they are.
            let Ok(stopped) = stopping.fence() else { return };
            for stopped in stopped {
                let is_it = |(cache, _): &mut (&Cache, _)| ptr::eq(&cache.slab, stopped.slab());
                if let Some(one) = held.iter_mut().find_map(|place| place.take_if(is_it)) {
                    f(one);
                }
            }
        }
        Way::GatedThread => {
            let mut closing = [const { None }; TOGETHER];
            for (place, (cache, _)) in closing.iter_mut().zip(held.iter().flatten()) {
                *place = cache.gate.close();
            }
            if gate::fence() {
                // In the same order, from which nothing was taken meanwhile.
                for (closing, place) in closing.into_iter().zip(held.iter_mut().filter(|place| place.is_some())) {
                    if closing.as_ref().is_some_and(Closing::closed)
                        && let Some(one) = place.take()
                    {
                        f(one);
                    }
                }
            }
        }
        Way::Shard | Way::LockedCpu => {
            for one in held.iter_mut().filter_map(Option::take) {
                let _locked = one.0.lists.lock();
                f(one);
            }
        }
        Way::Thread => {
            let own = thread::present_cache();
            for one in held.iter_mut().filter_map(Option::take) {
                if own.is_some_and(|own| ptr::eq(own, one.0)) {
                    f(one);
                }
            }
        }
        Way::Uncached | Way::Undecided => {}
    }
}

/// Empties all caches that can be taken, and keeps their arrays; returns how many bytes.
///
/// # Errors
///
/// As for [`Cache::drain`]. All else is done.
pub fn drain() -> Result<usize, Misuse> {
    let _right = RIGHT.lock();
    let (mut bytes, mut finding) = (0, Ok(()));
    let mut caches = registry::all().filter(|cache| cache.capacity_bytes() > 0).peekable();
    while caches.peek().is_some() {
        let mut held: [Held; TOGETHER] = [const { None }; TOGETHER];
        for (place, cache) in held.iter_mut().zip(caches.by_ref()) {
            // Whoever has a shape waits for no other and not for the right, which we have: no circle.
            *place = Some((cache, cache.shape().lock_another()));
        }
        take(&mut held, |front, shape| {
            let drained = front.cache().drain(front, shape);
            finding = finding.and(drained.map(|drained| bytes += drained));
        });
    }
    finding.map(|()| bytes)
}

/// Empties the calling thread's cache and takes its arrays, before the thread ends.
pub fn strip_own(cache: &'static Cache) -> Result<(), Misuse> {
    let mut shape = cache.shape().lock();
    // SAFETY: nobody takes a cache whose shape they have not locked, and its owner is here.
    cache.strip_all(unsafe { Exclusive::new(cache) }, &mut shape)
}

/// Empties caches that are idle, if it is time to. The caller holds no lock.
#[cold]
pub fn look_around() {
    let period = PERIOD.load(Relaxed);
    if period == 0 || !Way::now().reclaims() {
        return;
    }
    let now = os::milliseconds();
    if now >= NEXT_LOOK.load(Relaxed) {
        judge(empty_idle(now, period));
    }
}

/// Empties caches that are idle at this time.
fn empty_idle(now: u64, period: u64) -> Result<(), Misuse> {
    let Some(_right) = RIGHT.try_lock() else { return Ok(()) };
    let mut finding = Ok(());
    budget::starve(false); // who still goes without says so again
    let mut held: [Held; TOGETHER] = [const { None }; TOGETHER];
    let mut places = held.iter_mut();
    let mut more = false;
    for cache in registry::all().filter(|cache| cache.capacity_bytes() > 0) {
        let signature = cache.signature();
        let changed = cache.look.signature.swap(signature, Relaxed) != signature;
        if changed || now.saturating_sub(cache.look.since.load(Relaxed)) < period {
            if changed {
                cache.look.since.store(now, Relaxed);
            }
            continue;
        }
        let Some(shape) = cache.shape().try_lock() else { continue };
        let Some(place) = places.next() else {
            more = true;
            break;
        };
        cache.look.since.store(now, Relaxed); // if it cannot be had, another period
        *place = Some((cache, shape));
    }
    if held[0].is_some() {
        take(&mut held, |front, shape| {
            finding = finding.and(front.cache().strip_all(front, shape));
            front.cache().idle_drains.fetch_add(1, Relaxed);
        });
    }
    if !more {
        NEXT_LOOK.store(now + period.div_ceil(2), Relaxed); // else the next miss that looks goes on
    }
    finding
}

/// Takes budget from other caches for `cache`, which wants `bytes` more. The caller holds no lock.
#[cold]
pub fn ask_for_budget(cache: &'static Cache, bytes: usize) {
    let has_right = cache.capacity_bytes() + bytes <= budget::share();
    if !Way::now().reclaims() || cache.misses() < cache.look.next_plea.load(Relaxed) {
        return;
    }
    let Some(mut right) = RIGHT.try_lock() else { return };
    let asked = ask_others(&mut right, cache, bytes, has_right);
    drop(right);
    let got = asked == Ok(true);
    cache.look.next_plea.store(cache.misses() + MISSES_PER_PLEA[usize::from(!got)], Relaxed);
    if !got && has_right {
        budget::starve(true);
    }
    judge(asked);
}

fn ask_others(hand: &mut Hand, cache: &'static Cache, bytes: usize, has_right: bool) -> Result<bool, Misuse> {
    let share = budget::share();
    let begin = hand.0;
    let after = registry::all().skip_while(|other| !ptr::eq(*other, begin)).skip(1);
    let mut passed = 0;
    for other in after.chain(registry::all()).take(registry::all().count()) {
        let capacity = other.capacity_bytes();
        if ptr::eq(other, cache) || capacity == 0 {
            continue;
        }
        let over = capacity.saturating_sub(share);
        // An eighth at least, so that few fences move much.
        let wanted = bytes.max(capacity / 8);
        let wanted = match other.missed_lately.swap(false, Relaxed) {
            false => wanted,
            true if has_right && over > 0 => wanted.min(over),
            true => continue,
        };
        hand.0 = other;
        let Some(shape) = other.shape().try_lock() else { continue };
        let mut given = Ok(0);
        take(&mut [Some((other, shape))], |front, shape| given = other.give_up(front, shape, wanted));
        let given = given?;
        other.lendings.fetch_add(u64::from(given > 0), Relaxed);
        passed += given;
        if passed >= bytes {
            return Ok(true);
        }
    }
    Ok(passed > 0)
}
