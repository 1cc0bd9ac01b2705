//! What a thread keeps: two words of static TLS that name slabs.
//!
//! The **cell** belongs to the modes whose fast path is inlined. It names the slab that the thread used last; in a
//! per-CPU mode, a sequence checks that this slab still is the right one.
//!
//! **Home** belongs to the other modes, and to all of them while a heap profile is taken. Their threads never change the
//! cell, so inlined code, which looks there, finds nothing and goes on to the slow path.
//!
//! A thread without a cache has words all the same. They name one of the static slabs below, whose lists look empty to
//! an allocation and full to a free.

use core::ptr;

use rseq::Slab;
use rseq::sequence::ThreadCell;

use crate::decided;
use crate::front_end::cache::Cache;
use crate::front_end::gate::Gate;
use crate::front_end::hits;
use crate::front_end::registry;
use crate::size_class::{CLASSES, SizeClass};
use crate::way;

/// Lists that are nobody's. What a cache begins with, so that the fast paths need not tell them from one.
#[repr(C)]
struct NoCache {
    slab: Slab<CLASSES>,
    gate: Gate,
}

/// Where threads begin.
static NO_SLAB: NoCache = NoCache { slab: Slab::new(), gate: Gate::new() };
/// Where threads end: their cache is gone, and they get no other.
static EXITED: NoCache = NoCache { slab: Slab::new(), gate: Gate::new() };

/// Where a thread is while a child process runs on its TLS.
static LENT: NoCache = NoCache { slab: Slab::new(), gate: Gate::new() };

rseq::thread_cell! {
    /// Names the slab the calling thread used last, in the modes whose fast path is inlined.
    pub fn cell() -> "perseq_cell": CLASSES, NO_SLAB.slab
}

rseq::thread_cell! {
    /// Names the calling thread's slab in the other modes, where it has one.
    pub fn home() -> "perseq_home": CLASSES, NO_SLAB.slab
}

/// The cache that `word` names, if it names one.
#[inline]
pub fn cache(word: ThreadCell<CLASSES>) -> Option<&'static Cache> {
    let slab = word.get();
    (![&NO_SLAB, &EXITED, &LENT].iter().any(|none| ptr::eq(slab, &none.slab))).then(|| cache_of(slab))
}

/// The thread's own cache that `word` names, made if there is none. `None` if the thread is ending or memory is
/// exhausted.
#[inline]
pub fn own_cache(word: ThreadCell<CLASSES>) -> Option<&'static Cache> {
    let found = cache(word);
    if found.is_none() && ptr::eq(word.get(), &NO_SLAB.slab) { first_cache(word) } else { found }
}

#[cold]
fn first_cache(word: ThreadCell<CLASSES>) -> Option<&'static Cache> {
    let cache = registry::thread_cache()?;
    word.set(&cache.slab);
    // May allocate, and so come back here: the word is set. If it fails, the cache is never given back.
    decided::notice_exit();
    Some(cache)
}

/// The word of the modes whose fast path is inlined, unless a heap profile is taken. A thread that is lent looks where
/// [`lend`] said so.
#[inline]
pub fn front() -> ThreadCell<CLASSES> {
    let is_moved = way::word() == way::PROFILED && way::behind() != way::OUT_OF_LINE;
    if is_moved && !is_lent() { home() } else { cell() }
}

/// The word that names the calling thread's own cache, in the modes where it has one.
fn own_word() -> ThreadCell<CLASSES> {
    if way::behind() == way::GATED { home() } else { front() }
}

/// The calling thread's own cache, if it has one, in a mode that gives it one.
pub fn present_cache() -> Option<&'static Cache> {
    cache(own_word())
}

/// The calling thread took an object out of its cache. It may be elsewhere by now: its word still names the cache.
#[inline(always)]
pub fn count_alloc(class: SizeClass) {
    if hits::COUNTED
        && let Some(cache) = present_cache()
    {
        cache.hits.count_alloc(class);
    }
}

/// The calling thread put an object into its cache.
#[inline(always)]
pub fn count_free(class: SizeClass) {
    if hits::COUNTED
        && let Some(cache) = present_cache()
    {
        cache.hits.count_free(class);
    }
}

/// The calling thread gets no cache any more.
pub fn retire() {
    own_word().set(&EXITED.slab);
}

/// Keeps the calling thread from the caches whose lists are inlined code's until [`take_back`]: it finds none, and goes
/// past them. Returns what its cell named.
pub fn lend() -> &'static Slab<CLASSES> {
    let before = cell().get();
    cell().set(&LENT.slab);
    before
}

/// The calling thread's cell names again what it named before [`lend`].
pub fn take_back(before: &'static Slab<CLASSES>) {
    cell().set(before);
}

/// As [`lend`], for ever, and in the modes where threads have caches of their own as well.
pub fn share() {
    cell().set(&LENT.slab);
    home().set(&EXITED.slab);
}

/// Whether a child process may be running on the calling thread's TLS, or is what asks.
#[inline]
pub fn is_lent() -> bool {
    ptr::eq(cell().get(), &LENT.slab)
}

/// The gate behind `slab`, which a word of a thread names.
#[inline(always)]
pub fn gate_of(slab: &'static Slab<CLASSES>) -> &'static Gate {
    const { assert!(core::mem::offset_of!(Cache, gate) == core::mem::offset_of!(NoCache, gate)) };
    // SAFETY: every slab that a thread's word names is the first field of a cache or of a `NoCache`.
    unsafe { &(*ptr::from_ref(slab).cast::<NoCache>()).gate }
}

/// The cache that begins with `slab`.
#[inline]
fn cache_of(slab: &'static Slab<CLASSES>) -> &'static Cache {
    const { assert!(core::mem::offset_of!(Cache, slab) == 0) };
    // SAFETY: every slab but the statics, which callers excluded, is the first field of a cache.
    unsafe { &*ptr::from_ref(slab).cast::<Cache>() }
}
