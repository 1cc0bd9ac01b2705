//! An object in its user's hands.

use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use rseq::{CpuId, Index};

use super::cache::ObjectCache;
use super::construct::{ByDefault, Construct};

/// An object in use. Dropping it gives it back, as it is.
#[must_use]
pub struct Cached<'a, T, C: Construct<T> = ByDefault, I: Index = CpuId> {
    cache: &'a ObjectCache<T, C, I>,
    object: NonNull<T>,
}

// SAFETY: it is the object, and the right to give it back.
unsafe impl<T: Send, C: Construct<T> + Sync, I: Index> Send for Cached<'_, T, C, I> {}
// SAFETY: a shared one gives a shared object, and nothing of the cache.
unsafe impl<T: Sync, C: Construct<T> + Sync, I: Index> Sync for Cached<'_, T, C, I> {}

impl<T, C: Construct<T>, I: Index> ObjectCache<T, C, I> {
    /// An object, as it was left by who gave it back, or new. `None` if memory is exhausted.
    #[inline]
    pub fn get(&self) -> Option<Cached<'_, T, C, I>> {
        self.take_raw().map(|object| Cached { cache: self, object })
    }
}

impl<T, C: Construct<T>, I: Index> Cached<'_, T, C, I> {
    /// Destructs the object instead of giving it back: it is in a state that nobody should get.
    pub fn discard(this: Self) {
        let Cached { cache, object } = this;
        mem::forget(this);
        // SAFETY: the object was ours, and `this` does not give it back any more.
        unsafe { cache.discard_raw(object) };
    }
}

impl<T, C: Construct<T>, I: Index> Deref for Cached<'_, T, C, I> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a constructed object, ours until we are dropped.
        unsafe { self.object.as_ref() }
    }
}

impl<T, C: Construct<T>, I: Index> DerefMut for Cached<'_, T, C, I> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.object.as_mut() }
    }
}

impl<T, C: Construct<T>, I: Index> Drop for Cached<'_, T, C, I> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: from `take_raw` of this cache, and not used again.
        unsafe { self.cache.put_raw(self.object) };
    }
}

impl<T: fmt::Debug, C: Construct<T>, I: Index> fmt::Debug for Cached<'_, T, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
