//! Children that run on their parent's memory and TLS: `vfork`, and `clone` with `CLONE_VM` and without `CLONE_SETTLS`.
//!
//! To the kernel such a child is a task without an rseq area; to itself it has its parent's, which says where the
//! parent was when it last ran. A sequence of the child changes that CPU's lists from any CPU, and is not aborted when
//! it is preempted. The child cannot find that out by itself: memory and registers are what they are in its parent, but
//! for the number that the system call returns, which only its caller sees. So no check on the fast path could tell,
//! whatever it costs, and a system call on the slow path is too late. What can be done is done before: the thread's
//! cell names lists that are nobody's, so that every operation of the child comes to the slow path, and that goes past
//! the caches.
//!
//! An [`ObjectCache`](crate::objects::ObjectCache) finds its lists by the CPU's number alone, with no such word in
//! between: a child that runs on its parent's memory must not use one.
//!
//! libperseq does it in its `vfork` and `clone`. A program that has perseq for its allocator and no libperseq does it
//! itself:
//!
//! ```
//! let lent = perseq::lend_thread();
//! // SAFETY: the child executes another program, or ends.
//! let child = unsafe { libc::vfork() };
//! if child == 0 {
//!     drop(Box::new([0_u8; 64])); // allocates past the caches
//!     // SAFETY: as above.
//!     unsafe { libc::_exit(0) };
//! }
//! drop(lent); // in the parent, which ran no further while the child had its thread
//! # assert!(child > 0);
//! ```

use core::marker::PhantomData;

use rseq::Slab;

use crate::front_end::thread;
use crate::process::thread_exit;
use crate::size_class::CLASSES;
use crate::this_thread;

/// The calling thread uses no cache until this is dropped. See [`lend_thread`].
#[derive(Debug)]
#[must_use = "dropping it takes the thread back"]
pub struct LentThread {
    before: &'static Slab<CLASSES>,
    _not_send: PhantomData<*mut ()>,
}

/// Prepares the calling thread for a child process that runs on its memory and TLS while the thread waits, as after
/// `vfork` or `clone` with `CLONE_VM | CLONE_VFORK`. The child may then allocate and free, in every mode; so may the
/// thread, and handlers in both where the mode allows it. It must not use an
/// [`ObjectCache`](crate::objects::ObjectCache). No system call. May be nested, by a child that has a child.
pub fn lend_thread() -> LentThread {
    LentThread { before: thread::lend(), _not_send: PhantomData }
}

/// As [`lend_thread`], for ever: for a child that runs at the same time as the thread, as after `clone` with `CLONE_VM`
/// alone, whose end nobody is told. A cache of the thread's own is emptied. Handlers of the two must not allocate: which of
/// them holds a lock cannot be told.
pub fn share_thread() {
    thread_exit::give_up_cache();
    thread::share();
    this_thread::share();
}

impl LentThread {
    /// As a number, for code that keeps it in a register.
    pub fn into_raw(self) -> usize {
        let raw = core::ptr::from_ref(self.before) as usize;
        core::mem::forget(self);
        raw
    }

    /// What [`LentThread::into_raw`] gave.
    ///
    /// # Safety
    ///
    /// * `raw` is from `into_raw`, in this thread, and is used once.
    pub unsafe fn from_raw(raw: usize) -> Self {
        // SAFETY: by our own contract: slabs that a cell names live for ever.
        LentThread { before: unsafe { &*(raw as *const Slab<CLASSES>) }, _not_send: PhantomData }
    }
}

impl Drop for LentThread {
    fn drop(&mut self) {
        thread::take_back(self.before);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_lent_thread_comes_back_when_all_children_are_gone() {
        std::thread::spawn(|| {
            let lent = lend_thread();
            assert!(thread::is_lent());
            let raw = lend_thread().into_raw();
            assert!(thread::is_lent());
            // SAFETY: from `into_raw`, once.
            drop(unsafe { LentThread::from_raw(raw) });
            assert!(thread::is_lent(), "the first child still has it");
            drop(lent);
            assert!(!thread::is_lent());
            share_thread();
            drop(lend_thread());
            assert!(thread::is_lent(), "for ever");
        })
        .join()
        .expect("no panic");
    }
}
