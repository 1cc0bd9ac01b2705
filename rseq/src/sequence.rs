//! The Rust faces of the sequences in `asm/`, whose README is their specification.
//!
//! Each runs on the slab that the calling thread's [`ThreadCell`] names, if that slab's id is the
//! thread's index at that moment. If not, the outcome is [`Miss::Moved`]: look up the slab of the
//! current index, store it in the cell, try again. An abort is not an outcome: the sequence restarts
//! itself, and inputs live in registers it never writes.
//!
//! Everything here is inlined into its caller. Cost of `pop` and `push` on x86-64: 10 and 10
//! instructions between arming and commit, one taken-never branch for "right CPU, not stopped,
//! registered" and one for "empty" or "full".

use core::arch::{asm, global_asm};
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::abi::{RSEQ_CS, SIGNATURE};
use crate::index::Index;
use crate::slab::{Slab, Slot, TOPS};
use crate::thread::Handle;

global_asm!(
    ".pushsection .bss.rseq_sequence_restarts, \"aw\", @nobits",
    ".balign 64",
    ".globl rseq_sequence_restarts",
    ".hidden rseq_sequence_restarts",
    "rseq_sequence_restarts: .zero 64",
    ".popsection",
);

/// Why a sequence did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// The cell's slab is not the slab of the thread's index: the thread moved, the slab is stopped, or
    /// the thread is not registered.
    Moved,
    /// `pop`: the list is empty. `push`: it is full. `replace`: its top was not the expected one.
    Unfit,
}

const MOVED: usize = 3;
const UNFIT: usize = 1;
const DONE: usize = 0;
const MOVED_COUNT: isize = -1;

/// A word in static TLS that names the slab its thread used last. Made by [`crate::thread_cell!`].
#[derive(Debug)]
pub struct ThreadCell<const LISTS: usize> {
    offset: isize,
    _slab: PhantomData<&'static Slab<LISTS>>,
}

impl<const LISTS: usize> Clone for ThreadCell<LISTS> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<const LISTS: usize> Copy for ThreadCell<LISTS> {}

impl<const LISTS: usize> ThreadCell<LISTS> {
    /// The cell at `offset` from the thread pointer.
    ///
    /// # Safety
    ///
    /// * Every thread has there a word that always names a [`Slab<LISTS>`] which is never unmapped.
    #[inline(always)]
    #[must_use]
    pub unsafe fn at(offset: isize) -> Self {
        ThreadCell { offset, _slab: PhantomData }
    }

    /// The slab this thread used last.
    #[inline(always)]
    #[must_use]
    pub fn get(self) -> &'static Slab<LISTS> {
        let slab: *const Slab<LISTS>;
        // SAFETY: a word of this thread that always names a live slab, by the contract of `at`.
        unsafe {
            asm!("mov {}, qword ptr fs:[{}]", out(reg) slab, in(reg) self.offset,
                 options(nostack, preserves_flags, readonly));
            &*slab
        }
    }

    /// Names another slab. One store: a signal handler sees the old one or the new one.
    #[inline(always)]
    pub fn set(self, slab: &'static Slab<LISTS>) {
        // SAFETY: a word of this thread, and `slab` lives for ever.
        unsafe {
            asm!("mov qword ptr fs:[{}], {}", in(reg) self.offset, in(reg) slab, options(nostack, preserves_flags));
        }
    }
}

/// Defines a function that returns a [`ThreadCell`] backed by one word of static TLS (initial-exec),
/// named `$symbol` in the binary. `$initial` is a `static` [`Slab`] that stays stopped for ever: what
/// the cell names in a thread that has used no slab yet.
#[macro_export]
macro_rules! thread_cell {
    ($(#[$doc:meta])* $vis:vis fn $name:ident() -> $symbol:literal: $lists:expr, $initial:path) => {
        ::core::arch::global_asm!(
            concat!(".pushsection .tdata.", $symbol, ", \"awT\", @progbits"),
            ".balign 8",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @object"),
            concat!($symbol, ": .quad {initial}"),
            concat!(".size ", $symbol, ", 8"),
            ".popsection",
            initial = sym $initial,
        );
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name() -> $crate::sequence::ThreadCell<{ $lists }> {
            let offset: isize;
            // SAFETY: loads the link-time offset of the TLS word defined above, which starts as the
            // address of `$initial` and is changed by `ThreadCell::set` only.
            unsafe {
                ::core::arch::asm!(
                    concat!("mov {}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    out(reg) offset,
                    options(nostack, preserves_flags, pure, nomem),
                );
                $crate::sequence::ThreadCell::at(offset)
            }
        }
    };
}

/// `asm!` with the shared first and last part around one sequence and the operands all of them have.
macro_rules! sequence {
    ($file:literal, $index:ty, $handle:expr, $cell:expr, $list:expr, $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/x86_64/arm.s"),
            include_str!(concat!("../../asm/x86_64/", $file)),
            include_str!("../../asm/x86_64/abort.s"),
            handle = in(reg) $handle.0,
            cell = in(reg) $cell.offset,
            list = in(reg) $list,
            RSEQ_CS = const RSEQ_CS - <$index>::TAG,
            INDEX = const <$index>::FIELD - <$index>::TAG,
            TOPS = const TOPS,
            SIGNATURE = const SIGNATURE,
            $($operands)*
            options(nostack),
        )
    };
}

/// Takes the newest object of `list`.
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is empty. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * Slabs reachable through `cell` keep the invariants of [`crate::slab`], and those with an id other than
///   [`crate::STOPPED`] are found by `I`.
/// * `list` is below `LISTS`.
#[inline(always)]
pub unsafe fn pop<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
) -> Result<NonNull<u8>, Miss> {
    let item: usize;
    // SAFETY: by our own contract; the only store is the commit, and the kernel lets it run only if
    // nothing interrupted the thread since arming.
    unsafe {
        sequence!("pop.s", I, handle, cell, list,
            tmp = out(reg) _,
            slab = out(reg) _,
            item = out(reg) item,
            MOVED = const MOVED,
        );
    }
    if item & UNFIT == 0 {
        // SAFETY: an even item is an object somebody pushed, never null.
        return Ok(unsafe { NonNull::new_unchecked(item as *mut u8) });
    }
    Err(miss(item))
}

/// Puts `object` on top of `list`.
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is full. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * As for [`pop`]; `object` is even.
#[inline(always)]
pub unsafe fn push<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    object: NonNull<u8>,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the store before the commit is to a slot above the list.
    unsafe {
        sequence!("push.s", I, handle, cell, list,
            object = in(reg) object.as_ptr(),
            tmp = out(reg) outcome,
            slab = out(reg) _,
            MOVED = const MOVED,
            FULL = const UNFIT,
        );
    }
    if outcome & UNFIT == 0 { Ok(()) } else { Err(miss(outcome)) }
}

/// Takes up to `objects.len()` of the newest objects of `list`, newest first; returns how many.
///
/// # Errors
///
/// [`Miss::Moved`]: see the module. An empty list is `Ok(0)`.
///
/// # Safety
///
/// * As for [`pop`].
#[inline]
pub unsafe fn pop_batch<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    objects: &mut [*mut u8],
) -> Result<usize, Miss> {
    let count: isize;
    // SAFETY: by our own contract; stores before the commit are to `objects`, ours alone.
    unsafe {
        sequence!("pop_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_mut_ptr(),
            max = in(reg) objects.len(),
            count = out(reg) count,
            tmp = out(reg) _,
            top = out(reg) _,
            slab = out(reg) _,
            MOVED_COUNT = const MOVED_COUNT,
        );
    }
    if count >= 0 { Ok(count as usize) } else { Err(Miss::Moved) }
}

/// Puts objects on top of `list`, first to last, until it is full; returns how many.
///
/// # Errors
///
/// [`Miss::Moved`]: see the module. A full list is `Ok(0)`.
///
/// # Safety
///
/// * As for [`pop`]; every object is even and not null.
#[inline]
pub unsafe fn push_batch<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    objects: &[*mut u8],
) -> Result<usize, Miss> {
    let count: isize;
    // SAFETY: by our own contract; stores before the commit are to slots above the list.
    unsafe {
        sequence!("push_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_ptr(),
            max = in(reg) objects.len(),
            count = out(reg) count,
            tmp = out(reg) _,
            top = out(reg) _,
            slab = out(reg) _,
            MOVED_COUNT = const MOVED_COUNT,
        );
    }
    if count >= 0 { Ok(count as usize) } else { Err(Miss::Moved) }
}

/// Gives `list` another array if its top is still `expected`. The old array is free when this returns.
///
/// # Errors
///
/// [`Miss::Unfit`]: the top is another. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * As for [`pop`]; `new` is the lowest slot of an array made by [`crate::slab::make_array`].
#[inline]
pub unsafe fn replace<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    expected: *mut Slot,
    new: *mut Slot,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        sequence!("replace.s", I, handle, cell, list,
            expected = in(reg) expected,
            new = in(reg) new,
            tmp = out(reg) outcome,
            slab = out(reg) _,
            MOVED = const MOVED,
            CHANGED = const UNFIT,
            DONE = const DONE,
        );
    }
    if outcome == DONE { Ok(()) } else { Err(miss(outcome)) }
}

#[inline(always)]
fn miss(outcome: usize) -> Miss {
    if outcome == MOVED { Miss::Moved } else { Miss::Unfit }
}
