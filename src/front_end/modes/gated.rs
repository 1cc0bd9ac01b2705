//! One cache per thread, which others can take while its owner is outside.
//!
//! The owner says that it is inside by passing the cache's [`Gate`], without an atomic operation; others close it, at
//! the price of a fence for all the gates they close.

use rseq::Slab;

use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{Fallback, FrontEnd, Held, Prepared, TOGETHER};
use crate::front_end::gate::{self, Closing, Gate};
use crate::front_end::lists::{Exclusive, Guarded};
use crate::front_end::thread::{self, home};
use crate::mode::{Mode, Reason};
use crate::owner::Owner;
use crate::size_class::CLASSES;
use crate::way::GATED;

/// The thread's word is its home: inlined code, which knows no gates, finds nothing in the cell.
pub enum PerThreadDrain {}

impl FrontEnd for PerThreadDrain {
    type Lists = Inside;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Thread);
    const THREADS: bool = true;
    const LENDS: bool = true;

    fn prepare() -> Result<Prepared, Fallback> {
        gate::register().map_err(|errno| Fallback(Mode::PerThread, Reason::NoFence(errno)))?;
        Ok(Prepared { registration: None, word: GATED })
    }

    #[inline]
    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        thread::own_cache(home()).map(|cache| (cache, Inside { slab: &cache.slab, gate: &cache.gate }))
    }

    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        let mut closing = [const { None }; TOGETHER];
        for (place, (cache, _)) in closing.iter_mut().zip(held.iter().flatten()) {
            *place = cache.gate.close();
        }
        if !gate::fence() {
            return;
        }
        // In the same order, from which nothing was taken meanwhile.
        for (closing, place) in closing.into_iter().zip(held.iter_mut().filter(|place| place.is_some())) {
            if closing.as_ref().is_some_and(Closing::closed)
                && let Some((cache, mut shape)) = place.take()
            {
                // SAFETY: the gate is closed and the owner outside, until `closing` is dropped, after this.
                f(cache, unsafe { Exclusive::new(&cache.slab) }, &mut shape);
            }
        }
    }
}

/// Lists of the calling thread's, changed inside its gate.
#[derive(Clone, Copy)]
pub struct Inside {
    slab: &'static Slab<CLASSES>,
    gate: &'static Gate,
}

impl Guarded for Inside {
    #[inline(always)]
    fn slab(self) -> &'static Slab<CLASSES> {
        self.slab
    }
    #[inline(always)]
    fn guard(self) -> Option<impl Sized> {
        self.gate.enter()
    }
}
