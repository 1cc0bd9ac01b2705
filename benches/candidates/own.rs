//! The crate's own: I with the pointer header.

use std::ptr::NonNull;

use rseq::{CpuId, Handle, Miss, Registration, Slab, sequence};

use super::memory::{First, Header, Slabs, cpu};
use super::{Candidate, LISTS};
use crate::kit;

#[derive(Clone, Copy)]
pub struct Crate {
    handle: Handle,
    slabs: &'static Slabs,
}

impl Candidate for Crate {
    const NAME: &'static str = "the crate's";

    fn new(registration: &Registration) -> Self {
        Crate { handle: registration.handle::<CpuId>(), slabs: Slabs::leak(Header::Pointer, First::Slab) }
    }

    #[inline(always)]
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        // SAFETY: the handle is for CpuId, the cell names a slab that was started, and lists are below LISTS.
        unsafe { sequence::pop::<CpuId, LISTS>(self.handle, kit::cell(), list) }
    }

    #[inline(always)]
    fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        // SAFETY: as in `pop`; objects are aligned to 64.
        unsafe { sequence::push::<CpuId, LISTS>(self.handle, kit::cell(), list, object) }
    }

    fn locate(self) {
        let slab = self.slabs.slab(cpu()).cast::<Slab<LISTS>>();
        // SAFETY: a slab that was filled in, and is kept.
        kit::cell().set(unsafe { &*slab });
    }
}
