//! One cache per thread, which nobody else touches: plain loads and stores.

use core::ptr;

use rseq::Slab;

use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{Fallback, FrontEnd, Held, Prepared};
use crate::front_end::lists::{Exclusive, Guarded};
use crate::front_end::thread;
use crate::owner::Owner;
use crate::size_class::CLASSES;
use crate::way::LOCAL;

/// The thread's word is its cell, so that inlined code finds the cache, unless a heap profile is taken.
pub enum PerThread {}

impl FrontEnd for PerThread {
    type Lists = Own;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Thread);
    const THREADS: bool = true;
    const LENDS: bool = false;

    fn prepare() -> Result<Prepared, Fallback> {
        Ok(Prepared { registration: None, word: LOCAL })
    }

    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        thread::own_cache(thread::front()).map(|cache| (cache, Own(&cache.slab)))
    }

    /// The calling thread's own only.
    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        let own = thread::present_cache();
        for (cache, mut shape) in held.iter_mut().filter_map(Option::take) {
            if own.is_some_and(|own| ptr::eq(own, cache)) {
                // SAFETY: its owner is here.
                f(cache, unsafe { Exclusive::new(&cache.slab) }, &mut shape);
            }
        }
    }
}

/// Lists of the calling thread's.
#[derive(Clone, Copy)]
pub struct Own(&'static Slab<CLASSES>);

impl Guarded for Own {
    fn slab(self) -> &'static Slab<CLASSES> {
        self.0
    }
    fn guard(self) -> Option<impl Sized> {
        Some(())
    }
}
