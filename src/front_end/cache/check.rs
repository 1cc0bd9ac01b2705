//! A cache's laws, walked.

use core::sync::atomic::Ordering::Relaxed;

use rseq::slab::Slot;

use super::{Cache, Shape};
use crate::front_end::behind::Behind;
use crate::message::law;
use crate::size_class::SizeClass;

impl<B: Behind> Cache<B> {
    /// Looks at every list. While nobody is at them, and the caller has the shape locked.
    pub fn check(&self, shape: &Shape) {
        let mut bytes = 0;
        for class in SizeClass::all() {
            let list = class.index();
            let (base, top, slots) = (self.base[list].load(Relaxed), self.slab.top(list), self.capacity(class));
            law!((base == self.slab.nothing()) == (slots == 0), "based: a list without an array has no room");
            let length = (top as usize).wrapping_sub(base as usize) / size_of::<Slot>();
            law!(length <= slots, "pointed: a list's top lies within its array");
            for place in 0..length {
                // SAFETY: a slot of the list's array, which nobody changes now.
                let object = unsafe { *base.add(place).cast::<usize>() };
                law!(object != 0, "even: what is on a list is an address");
            }
            bytes += slots * class.size();
        }
        law!(bytes == shape.capacity_bytes, "accounted: a cache's room is the sum over its lists");
        law!(bytes == self.capacity_bytes.load(Relaxed), "accounted: what is read without the lock is so at rest");
    }
}
