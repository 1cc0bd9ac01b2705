//! How a cache's objects begin, and what is done to one that comes back.

use core::mem::MaybeUninit;

/// What a cache does to its objects.
///
/// # Safety
///
/// * When `construct` returns, there is a valid `T` at the place.
pub unsafe trait Construct<T> {
    /// Makes an object. It may panic; then the place counts as empty.
    ///
    /// # Safety
    ///
    /// * `place` is valid for writes of a `T`, aligned, and nobody else's.
    unsafe fn construct(&self, place: *mut T);

    /// Brings an object that was given back to the state it is to be handed out in. If it panics, the object is destructed.
    #[inline]
    fn reset(&self, object: &mut T) {
        _ = object;
    }
}

/// Objects begin as their type's default value.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByDefault;

// SAFETY: writes a value.
unsafe impl<T: Default> Construct<T> for ByDefault {
    unsafe fn construct(&self, place: *mut T) {
        // SAFETY: valid for writes, by our own contract.
        unsafe { place.write(T::default()) };
    }
}

/// Objects are what a function returns.
#[derive(Clone, Copy, Debug)]
pub struct ByFn<F>(pub F);

// SAFETY: writes a value.
unsafe impl<T, F: Fn() -> T> Construct<T> for ByFn<F> {
    unsafe fn construct(&self, place: *mut T) {
        // SAFETY: valid for writes, by our own contract.
        unsafe { place.write((self.0)()) };
    }
}

/// Objects are made where they will be: for those that are too large for the stack, or may not move.
#[derive(Clone, Copy, Debug)]
pub struct InPlace<F>(F);

impl<F> InPlace<F> {
    /// By `make`.
    ///
    /// # Safety
    ///
    /// * When `make` returns, there is a valid object at the place it was given, which is valid for writes and aligned.
    pub const unsafe fn new(make: F) -> Self {
        InPlace(make)
    }
}

// SAFETY: by the contract of `InPlace::new`.
unsafe impl<T, F: Fn(*mut T)> Construct<T> for InPlace<F> {
    unsafe fn construct(&self, place: *mut T) {
        (self.0)(place);
    }
}

/// Objects begin as memory, whatever is in it, and keep what their users write.
#[derive(Clone, Copy, Debug)]
pub struct Uninit;

// SAFETY: any memory is a value of this type.
unsafe impl<T> Construct<MaybeUninit<T>> for Uninit {
    unsafe fn construct(&self, _: *mut MaybeUninit<T>) {}
}

/// Objects are made by `construct`, and `reset` is run on each that is given back.
#[derive(Clone, Copy, Debug)]
pub struct WithReset<C, F> {
    pub(super) construct: C,
    pub(super) reset: F,
}

// SAFETY: made by one that keeps the promise.
unsafe impl<T, C: Construct<T>, F: Fn(&mut T)> Construct<T> for WithReset<C, F> {
    unsafe fn construct(&self, place: *mut T) {
        // SAFETY: by our own contract.
        unsafe { self.construct.construct(place) };
    }

    #[inline]
    fn reset(&self, object: &mut T) {
        self.construct.reset(object);
        (self.reset)(object);
    }
}
