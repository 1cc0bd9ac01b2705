//! Stopping slabs, so that a thread can use those of other CPUs.
//!
//! ```text
//! hold     slab.id = STOPPED        for each: new sequences leave
//! fence    membarrier               once for all: running ones are aborted, or had committed
//! act      plain loads and stores
//! resume   slab.id = owner          for each, when its guard is dropped
//! ```
//!
//! Every state in between is a guard of its own, and each starts its slabs again when it is dropped: after an error, an
//! early return or a panic no slab stays behind. (A guard that is leaked with `mem::forget` leaves its slabs stopped:
//! owners go without, nothing breaks.)

use core::fmt;
use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::sync::atomic::Ordering::Relaxed;

use crate::fence;
use crate::local;
use crate::slab::Slab;

/// Why a slab or a row could not be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StopError {
    /// There is no such row. Slabs never answer this.
    NoRow,
    /// Somebody else holds it stopped; or a slab that was never started.
    Held,
    /// The fence failed with this errno. What was to be stopped runs, untouched.
    Fence(i32),
}

impl fmt::Display for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopError::NoRow => f.write_str("there is no such row"),
            StopError::Held => f.write_str("stopped by somebody else"),
            StopError::Fence(libc::EPERM) => {
                f.write_str("membarrier was refused (EPERM): fence::register was not called, or a filter forbids it")
            }
            StopError::Fence(errno) => write!(f, "membarrier failed (errno {errno})"),
        }
    }
}

impl core::error::Error for StopError {}

impl<const LISTS: usize> Slab<LISTS> {
    /// Takes the slab from its owner: no sequence uses it when this returns, and none will until the
    /// guard is dropped.
    ///
    /// Costs one [`fence`], aimed at one CPU if the slab belongs to one; [`fence::register`] comes first (Linux 5.10).
    /// For more slabs than one see [`Stopping`]. Not for signal handlers: the guard of who was interrupted is not
    /// dropped meanwhile.
    ///
    /// # Errors
    ///
    /// [`StopError::Held`] or [`StopError::Fence`]; the slab is as it was.
    pub fn stop(&self) -> Result<Stopped<'_, LISTS>, StopError> {
        let mut stopping = Stopping::new();
        stopping.add(self)?;
        stopping.fence()?.next().ok_or(StopError::Held)
    }
}

/// Slabs that are being stopped together. No new sequence uses them; earlier ones may still be running.
///
/// Where many slabs are to be stopped, one fence for all of them costs less than one each, above all when owners are
/// concurrency ids: then every fence interrupts every CPU that runs this process.
///
/// ```
/// use rseq::{Slab, Stopping};
///
/// fn count<const LISTS: usize>(slabs: &[Slab<LISTS>]) -> Result<usize, rseq::StopError> {
///     let mut stopping = Stopping::new();
///     for slab in slabs {
///         let _ = stopping.add(slab); // those that somebody else holds are left out
///     }
///     let (mut objects, mut count) = ([std::ptr::null_mut(); 32], 0);
///     for stopped in stopping.fence()? {
///         for list in 0..LISTS {
///             count += stopped.pop_batch(list, &mut objects);
///         }
///     } // each slab goes on when its turn is over
///     Ok(count)
/// }
///
/// assert_eq!(count(&[Slab::<1>::new()]), Ok(0)); // belongs to nobody yet
/// ```
#[derive(Debug)]
#[must_use = "dropping it starts the slabs again"]
pub struct Stopping<'a, const LISTS: usize>(Chain<'a, LISTS>);

impl<'a, const LISTS: usize> Stopping<'a, LISTS> {
    /// No slab yet.
    pub const fn new() -> Self {
        Stopping(Chain { first: None, _not_send: PhantomData })
    }

    /// Keeps new sequences off `slab`. No system call.
    ///
    /// # Errors
    ///
    /// [`StopError::Held`]: it is not in the set; the others stay.
    pub fn add(&mut self, slab: &'a Slab<LISTS>) -> Result<(), StopError> {
        slab.hold()?;
        self.0.add(slab);
        Ok(())
    }

    /// Aborts the sequences that are still running on these slabs. One system call, none if there are no slabs.
    ///
    /// # Errors
    ///
    /// [`StopError::Fence`]: all slabs run again, untouched.
    pub fn fence(self) -> Result<StoppedSet<'a, LISTS>, StopError> {
        let Stopping(chain) = self;
        let fenced = match chain.first {
            None => Ok(()),
            Some(only) if only.next_held().load(Relaxed).is_null() => match only.owner_cpu() {
                Some(cpu) => fence::cpu(cpu),
                None => fence::all(),
            },
            Some(_) => fence::all(),
        };
        // On failure dropping the chain lets its slabs run again.
        fenced.map(|()| StoppedSet(chain)).map_err(StopError::Fence)
    }
}

impl<const LISTS: usize> Default for Stopping<'_, LISTS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Slabs that are stopped. An iterator that hands them out one by one, each with a guard of its own; those it is
/// dropped with run again.
#[derive(Debug)]
#[must_use = "dropping it starts the slabs again"]
pub struct StoppedSet<'a, const LISTS: usize>(Chain<'a, LISTS>);

impl<'a, const LISTS: usize> Iterator for StoppedSet<'a, LISTS> {
    type Item = Stopped<'a, LISTS>;

    fn next(&mut self) -> Option<Stopped<'a, LISTS>> {
        Some(Stopped { slab: self.0.take()?, _not_send: PhantomData })
    }
}

impl<const LISTS: usize> FusedIterator for StoppedSet<'_, LISTS> {}

/// Exclusive use of a stopped slab. Dropping it starts the slab again.
#[derive(Debug)]
#[must_use = "dropping it starts the slab again"]
pub struct Stopped<'a, const LISTS: usize> {
    slab: &'a Slab<LISTS>,
    _not_send: PhantomData<*mut ()>,
}

impl<'a, const LISTS: usize> Stopped<'a, LISTS> {
    /// The slab.
    #[must_use]
    pub fn slab(&self) -> &'a Slab<LISTS> {
        self.slab
    }

    /// Takes up to `objects.len()` of the newest objects of `list`; returns how many. Plain loads and stores.
    ///
    /// # Panics
    ///
    /// `list` is not below `LISTS`.
    pub fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> usize {
        assert!(list < LISTS);
        // SAFETY: **owned**: the guard is the only user.
        unsafe { local::pop_batch(self.slab, list, objects) }
    }
}

impl<const LISTS: usize> Drop for Stopped<'_, LISTS> {
    fn drop(&mut self) {
        self.slab.resume();
    }
}

/// Slabs that one thread holds, linked by a word in each, newest first.
#[derive(Debug)]
struct Chain<'a, const LISTS: usize> {
    first: Option<&'a Slab<LISTS>>,
    _not_send: PhantomData<*mut ()>,
}

impl<'a, const LISTS: usize> Chain<'a, LISTS> {
    /// Adds a slab that we hold.
    fn add(&mut self, slab: &'a Slab<LISTS>) {
        let next = self.first.map_or(core::ptr::null_mut(), |next| core::ptr::from_ref(next).cast_mut());
        slab.next_held().store(next, Relaxed); // we alone look at it
        self.first = Some(slab);
    }

    /// Takes one slab out, which we still hold.
    fn take(&mut self) -> Option<&'a Slab<LISTS>> {
        let slab = self.first?;
        // SAFETY: null, or a slab that `add` got as `&'a`.
        self.first = unsafe { slab.next_held().load(Relaxed).as_ref() };
        Some(slab)
    }
}

impl<const LISTS: usize> Drop for Chain<'_, LISTS> {
    fn drop(&mut self) {
        while let Some(slab) = self.take() {
            slab.resume();
        }
    }
}
