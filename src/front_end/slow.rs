//! Where the fast path ends: finds or makes the thread's cache, has it refilled or flushed, and conducts what that
//! takes from other caches.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rseq::sequence::Miss;

use crate::config::TURNED_AWAY_PER_YIELD;
use crate::front_end::cache::{Cache, Room, Starved};
use crate::front_end::contract::FrontEnd;
use crate::front_end::lists::Lists;
use crate::front_end::modes::in_mode;
use crate::front_end::reclaim;
use crate::middle::back_end::BACK_END;
use crate::misuse::judge;
use crate::size_class::SizeClass;
use crate::sync::end_turn;
use crate::way;

/// Goes on where [`fast::pop`](super::fast::pop) failed. `None` if memory is exhausted.
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    let Some(mode) = way::mode() else { return pop_uncached(class) };
    in_mode!(mode, M => pop_in::<M>(class))
}

/// Goes on where [`fast::push`](super::fast::push) failed.
///
/// # Safety
///
/// * As for [`fast::push`](super::fast::push).
#[inline(never)] // so that `perthread-drain` does not save its registers
pub unsafe fn push(class: SizeClass, object: NonNull<u8>) {
    let Some(mode) = way::mode() else { return push_uncached(class, object) };
    // SAFETY: by our own contract.
    in_mode!(mode, M => unsafe { push_in::<M>(class, object) });
}

/// Times a thread looks for its cache before it goes past it. A cache it was moved away from twice in a
/// row, or that is stopped, is not worth waiting for.
const TRIES: usize = 3;

/// Operations that found their caches taken.
static TURNED_AWAY: AtomicU32 = AtomicU32::new(0);

/// The cache is taken. Whoever took it may have been interrupted: on a CPU with many threads its next turn comes after all
/// others' turns, which would be spent past their caches. So now and then a thread ends its own.
#[cold]
fn turned_away() {
    if TURNED_AWAY.fetch_add(1, Relaxed).is_multiple_of(TURNED_AWAY_PER_YIELD) {
        end_turn();
    }
}

#[inline(never)] // so that a mode does not save another's registers
fn pop_in<M: FrontEnd>(class: SizeClass) -> Option<NonNull<u8>> {
    for _ in 0..TRIES {
        let Some((cache, lists)) = M::locate() else { return pop_uncached(class) };
        // SAFETY: `locate` found a cache with our lists.
        match unsafe { lists.pop(class.index()) } {
            Ok(object) => {
                cache.hits.count_alloc(class);
                return Some(object);
            }
            Err(Miss::Unfit) => return refill(cache, lists, class),
            Err(Miss::Moved) => {}
        }
    }
    turned_away();
    pop_uncached(class)
}

#[inline(never)] // as `pop_in`
unsafe fn push_in<M: FrontEnd>(class: SizeClass, object: NonNull<u8>) {
    for _ in 0..TRIES {
        let Some((cache, lists)) = M::locate() else { return push_uncached(class, object) };
        // SAFETY: as in `pop_in`; the object is free, by our own contract.
        match unsafe { lists.push(class.index(), object) } {
            Ok(()) => return cache.hits.count_free(class),
            Err(Miss::Unfit) => return flush(cache, lists, class, object),
            Err(Miss::Moved) => {}
        }
    }
    turned_away();
    push_uncached(class, object);
}

/// The list is empty. No lock is held.
fn refill<F: Lists>(cache: &'static Cache, lists: F, class: SizeClass) -> Option<NonNull<u8>> {
    if cache.count_miss() {
        reclaim::look_around();
    }
    let wanted = cache.begin_refill(class);
    match cache.refill(lists, class, wanted, Room::Unused) {
        Ok(object) => object,
        Err(Starved(bytes)) => {
            reclaim::steal_budget(cache, bytes);
            cache.refill(lists, class, wanted, Room::OtherLists).unwrap_or(None)
        }
    }
}

/// The list is full, or has no array yet. No lock is held.
fn flush<F: Lists>(cache: &'static Cache, lists: F, class: SizeClass, object: NonNull<u8>) {
    cache.begin_flush(class);
    let kept = match cache.push_to_first_array(lists, class, object, Room::Unused) {
        Ok(kept) => kept,
        Err(Starved(bytes)) => {
            reclaim::steal_budget(cache, bytes);
            cache.push_to_first_array(lists, class, object, Room::OtherLists).unwrap_or(false)
        }
    };
    if kept {
        return;
    }
    if cache.count_miss() {
        reclaim::look_around();
    }
    if let Err(Starved(bytes)) = cache.flush(lists, class, object) {
        reclaim::steal_budget(cache, bytes); // for the next time
    }
}

fn pop_uncached(class: SizeClass) -> Option<NonNull<u8>> {
    BACK_END.middle(class).remove_uncached().and_then(NonNull::new)
}

fn push_uncached(class: SizeClass, object: NonNull<u8>) {
    judge(BACK_END.middle(class).insert_uncached(object.as_ptr()));
}
