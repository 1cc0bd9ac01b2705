//! How the lists of a cache are changed: a [`Lists`] for each way, which is one of the two things that modes differ in.

use core::ptr::NonNull;

use rseq::local;
use rseq::sequence::Miss;
use rseq::slab::{Slab, Slot};

use crate::size_class::CLASSES;

/// How lists of a cache that was found are changed.
///
/// Each operation is whole to everybody else, or [`Miss::Moved`] and not done. The contracts are those of
/// [`rseq::sequence`].
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub trait Lists: Copy {
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss>;
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss>;
}

/// By whatever keeps everybody else off the lists: plain loads and stores inside it. `None`: not now.
pub trait Guarded: Copy {
    fn slab(self) -> &'static Slab<CLASSES>;
    fn guard(self) -> Option<impl Sized>;
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract; the guard keeps others off the slab
impl<G: Guarded> Lists for G {
    #[inline]
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        unsafe { local::pop(self.slab(), list) }.ok_or(Miss::Unfit)
    }
    #[inline]
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        if unsafe { local::push(self.slab(), list, object) } { Ok(()) } else { Err(Miss::Unfit) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        Ok(unsafe { local::pop_batch(self.slab(), list, objects) })
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        Ok(unsafe { local::push_batch(self.slab(), list, objects) })
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        let done = unsafe { local::replace(self.slab(), list, expected, new) };
        if done { Ok(()) } else { Err(Miss::Unfit) }
    }
}

/// Lists that nobody else changes.
#[derive(Clone, Copy)]
pub struct Exclusive(&'static Slab<CLASSES>);

impl Exclusive {
    /// # Safety
    ///
    /// * While the value or a copy of it is used, nobody else changes the lists of `slab`.
    pub unsafe fn new(slab: &'static Slab<CLASSES>) -> Self {
        Exclusive(slab)
    }
}

impl Guarded for Exclusive {
    fn slab(self) -> &'static Slab<CLASSES> {
        self.0
    }
    fn guard(self) -> Option<impl Sized> {
        Some(())
    }
}
