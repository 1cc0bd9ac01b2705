//! Caches that are seized from their owners: drained on request, drained because they are idle, and made to give budget
//! to a cache that misses.
//!
//! # Idle caches
//!
//! A cache is idle if for a whole period it did not miss and its lists were found unchanged: the cache of a thread that
//! sleeps, of a CPU that went offline, that no thread may use any more, or that has no work. An idle cache is emptied
//! and loses its arrays. A cache in use may look idle if it gives and takes the same few objects and never misses; it
//! loses them once a period, and fetches them again.
//!
//! No thread waits for time to pass. Every [`MISSES_PER_LOOK`] misses, the user of a cache reads the coarse clock; if
//! half a period has passed since the last look, that thread looks at all caches. So an idle cache is emptied between
//! one period and one and a half after its last use, by any thread that still misses. Without a miss no thread needs
//! memory.
//!
//! # Budget
//!
//! Under an equal total, a cache that misses and finds nothing left to reserve steals budget from the other caches, by
//! the same clock by which a list in need of an array takes it from other lists. A cache gives if it has not missed
//! since the hand last passed it. A cache that has more than its share also gives to one that has less.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::{IDLE_DRAIN_MS, MISSES_PER_STEAL};
use crate::front_end::budget;
use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{FrontEnd, Held, TOGETHER};
use crate::front_end::lists::Exclusive;
use crate::front_end::modes::in_mode;
use crate::front_end::registry;
use crate::lock_order::Rank;
use crate::misuse::{Misuse, judge};
use crate::mode::Mode;
use crate::os;
use crate::sync::Mutex;
use crate::way;

#[cfg(doc)]
use crate::config::MISSES_PER_LOOK;

/// Milliseconds; 0 for never.
static PERIOD: AtomicU64 = AtomicU64::new(IDLE_DRAIN_MS);
/// When to look for idle caches next, by the coarse clock, in milliseconds.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(0);

/// The clock's hand: the cache that the last search for budget ended with.
struct Hand(*const Cache);

// SAFETY: null or a cache, which lives for ever and is shared by all threads.
unsafe impl Send for Hand {}

/// The right to seize caches: one thread has it at a time. A seized cache is another's for as long as that thread holds
/// this lock, so none is at the time of a fork.
static RIGHT: Mutex<Hand> = Mutex::new(Rank::Reclaim, Hand(ptr::null()));

pub(crate) fn mutex() -> &'static Mutex<impl Sized> {
    &RIGHT
}

/// Idle caches are emptied after `period` milliseconds; `None`: never.
pub fn set_idle_drain(period: Option<u64>) {
    PERIOD.store(period.unwrap_or(0), Relaxed);
}

/// As [`FrontEnd::seize`] of this process's mode.
fn seize(held: &mut [Held], mut f: impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
    if let Some(mode) = way::mode() {
        in_mode!(mode, M => M::seize(held, &mut f));
    }
}

/// Empties all caches that can be taken, and keeps their arrays; returns how many bytes.
///
/// # Errors
///
/// As for [`Cache::drain`]. All else is done.
pub fn drain() -> Result<usize, Misuse> {
    let Some(_right) = RIGHT.lock_unless_orphaned() else { return Ok(0) };
    let (mut bytes, mut finding) = (0, Ok(()));
    let mut caches = registry::all().filter(|cache| cache.capacity_bytes() > 0).peekable();
    while caches.peek().is_some() {
        let mut held: [Held; TOGETHER] = [const { None }; TOGETHER];
        for (place, cache) in held.iter_mut().zip(caches.by_ref()) {
            // Whoever has a shape waits for no other and not for the right, which we have: no circle.
            *place = cache.shape().lock_another().map(|shape| (cache, shape));
        }
        seize(&mut held, |cache, lists, shape| {
            let drained = cache.drain(lists, shape);
            finding = finding.and(drained.map(|drained| bytes += drained));
        });
    }
    finding.map(|()| bytes)
}

/// Empties the calling thread's cache and removes its arrays, before the thread ends.
pub fn empty_own(cache: &'static Cache) -> Result<(), Misuse> {
    let Some(mut shape) = cache.shape().lock_unless_orphaned() else { return Ok(()) };
    // SAFETY: nobody seizes a cache whose shape they have not locked, and its owner is here.
    cache.remove_all_arrays(unsafe { Exclusive::new(&cache.slab) }, &mut shape)
}

/// Whether caches can be seized that are another's.
fn can_seize() -> bool {
    way::mode().is_some_and(Mode::lends)
}

/// Empties caches that are idle, if it is time to. The caller holds no lock.
#[cold]
pub fn look_around() {
    let period = PERIOD.load(Relaxed);
    if period == 0 || !can_seize() {
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
    budget::starve(false); // a cache that still goes without says so again
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
        seize(&mut held, |cache, lists, shape| {
            finding = finding.and(cache.remove_all_arrays(lists, shape));
            cache.idle_drains.fetch_add(1, Relaxed);
        });
    }
    if !more {
        NEXT_LOOK.store(now + period.div_ceil(2), Relaxed); // else the next miss that looks goes on
    }
    finding
}

/// Takes budget from other caches for `cache`, which wants `bytes` more, if caches lend. The caller holds no lock.
#[cold]
pub fn steal_budget(cache: &'static Cache, bytes: usize) {
    let has_right = cache.capacity_bytes() + bytes <= budget::share();
    if !budget::lends() || cache.misses() < cache.look.next_steal.load(Relaxed) {
        return;
    }
    let Some(mut right) = RIGHT.try_lock() else { return };
    let stolen = steal_from_others(&mut right, cache, bytes, has_right);
    drop(right);
    let got = stolen == Ok(true);
    cache.look.next_steal.store(cache.misses() + MISSES_PER_STEAL[usize::from(!got)], Relaxed);
    if !got && has_right {
        budget::starve(true);
    }
    judge(stolen);
}

fn steal_from_others(hand: &mut Hand, cache: &'static Cache, bytes: usize, has_right: bool) -> Result<bool, Misuse> {
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
        seize(&mut [Some((other, shape))], |cache, lists, shape| given = cache.give_up(lists, shape, wanted));
        let given = given?;
        other.lendings.fetch_add(u64::from(given > 0), Relaxed);
        passed += given;
        if passed >= bytes {
            return Ok(true);
        }
    }
    Ok(passed > 0)
}
