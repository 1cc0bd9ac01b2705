//! What is chosen about a cache before there is one.

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use rseq::{CpuId, Index};

use super::cache::{BuildError, ObjectCache};
use super::construct::{ByDefault, ByFn, Construct, InPlace, Uninit, WithReset};

/// Objects on each CPU's list unless said otherwise: fifteen come from the depot or go there at a time.
const PER_CPU: usize = 30;

/// Objects in the depot unless said otherwise: sixteen half lists.
const SHARED: usize = 240;

/// Chooses how an [`ObjectCache`] makes its objects and how many it keeps. How they are made comes first, then the reset.
#[derive(Debug)]
#[must_use]
pub struct Builder<T, C = ByDefault, I: Index = CpuId> {
    construct: C,
    align: usize,
    per_cpu: usize,
    shared: usize,
    _cache: PhantomData<fn() -> (T, I)>,
}

impl<T> ObjectCache<T> {
    /// Chooses what a cache of `T` is like.
    pub const fn builder() -> Builder<T> {
        Builder { construct: ByDefault, align: 1, per_cpu: PER_CPU, shared: SHARED, _cache: PhantomData }
    }

    /// A cache whose objects begin as `T`'s default.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: there is no memory.
    pub fn new() -> Result<Self, BuildError>
    where
        T: Default,
    {
        Self::builder().build()
    }
}

impl<T, I: Index> Builder<T, ByDefault, I> {
    /// Objects begin as `make` returns them.
    pub fn by_fn<F: Fn() -> T>(self, make: F) -> Builder<T, ByFn<F>, I> {
        self.by(ByFn(make))
    }

    /// Objects are written by `make` to the place they will be in.
    ///
    /// # Safety
    ///
    /// * As for [`InPlace::new`].
    pub unsafe fn in_place<F: Fn(*mut T)>(self, make: F) -> Builder<T, InPlace<F>, I> {
        // SAFETY: by our own contract.
        self.by(unsafe { InPlace::new(make) })
    }

    /// Objects are made by `construct`.
    pub fn by<C: Construct<T>>(self, construct: C) -> Builder<T, C, I> {
        self.with(|_| construct)
    }
}

impl<U, I: Index> Builder<MaybeUninit<U>, ByDefault, I> {
    /// Objects begin as memory with anything in it.
    pub fn uninit(self) -> Builder<MaybeUninit<U>, Uninit, I> {
        self.by(Uninit)
    }
}

impl<T, C, I: Index> Builder<T, C, I> {
    /// Runs `reset` on each object that is given back.
    pub fn reset<F: Fn(&mut T)>(self, reset: F) -> Builder<T, WithReset<C, F>, I> {
        self.with(|construct| WithReset { construct, reset })
    }

    /// Aligns objects to `align` at least, a power of two.
    pub fn align(self, align: usize) -> Self {
        Builder { align, ..self }
    }

    /// Keeps up to `objects` on each CPU's list, [`MAX_PER_CPU`](super::MAX_PER_CPU) at most; with 0, all are in the depot. Where there are no lists, the
    /// depot has room for one list more.
    pub fn per_cpu(self, objects: usize) -> Self {
        Builder { per_cpu: objects, ..self }
    }

    /// Keeps up to `objects` in the depot, beside what is on lists.
    pub fn shared(self, objects: usize) -> Self {
        Builder { shared: objects, ..self }
    }

    /// Lists belong to another of the kernel's numbers: with [`rseq::MmCid`] there are as many in use as threads run at a
    /// time, however many CPUs they wander over.
    pub fn index<J: Index>(self) -> Builder<T, C, J> {
        let Builder { construct, align, per_cpu, shared, .. } = self;
        Builder { construct, align, per_cpu, shared, _cache: PhantomData }
    }

    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says why there is none.
    pub fn build(self) -> Result<ObjectCache<T, C, I>, BuildError>
    where
        C: Construct<T>,
    {
        let layout = Layout::new::<T>().align_to(self.align).map_err(|_| BuildError::Align)?;
        ObjectCache::with(self.construct, layout, self.per_cpu, self.shared)
    }

    fn with<D>(self, change: impl FnOnce(C) -> D) -> Builder<T, D, I> {
        let Builder { construct, align, per_cpu, shared, .. } = self;
        Builder { construct: change(construct), align, per_cpu, shared, _cache: PhantomData }
    }
}
