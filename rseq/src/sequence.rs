//! The Rust faces of the sequences in `asm/`, whose README is their specification.
//!
//! Each runs on the slab that the calling thread's [`ThreadCell`] names, if that slab's id is the
//! thread's index at that moment. If not, the outcome is [`Miss::Moved`]: look up the slab of the
//! current index, store it in the cell, try again. An abort is not an outcome: the sequence restarts
//! itself, and inputs live in registers it never writes.
//!
//! Sequences on [`Rows`] find their row by arithmetic; there [`Miss::Moved`] means that the index has no row, or
//! that it is stopped. [`crate::Registration::ensure_thread`] and another try, or the overflow row, follow.
//!
//! Everything here is inlined into its caller. All need Linux 4.18, or 6.3 for [`crate::MmCid`]. Cost on x86-64 in instructions from
//! the arming store (two more) to the commit, with all branches but the loops' predicted and not taken:
//!
//! | | | | |
//! |---|---|---|---|
//! | [`pop`] | 10 | [`push`] | 10 |
//! | [`pop_batch`] | 9 + 9 per object | [`push_batch`] | 9 + 9 per object |
//! | [`replace`] | 8 | [`add`], [`load`], [`store`] | 8 |
//! | [`compare_exchange`] | 10 | [`linked_push`] | 10 |
//! | [`linked_pop`] | 12 | [`linked_pop_all`] | 11 |
//! | [`append`] | 14 | | |

use core::arch::{asm, global_asm};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::abi::{RSEQ_CS, SIGNATURE};
use crate::arch;
use crate::index::Index;
use crate::rows::{Rows, Zeroed};
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

unsafe extern "C" {
    #[link_name = "rseq_sequence_restarts"]
    static RESTARTS: AtomicU64;
}

/// Sequences of this process that the kernel aborted and that were restarted, since it started.
#[must_use]
pub fn restarts() -> u64 {
    // SAFETY: the word defined above, which starts as 0 and is changed by atomic additions only.
    unsafe { RESTARTS.load(Relaxed) } // a count; nothing is published by it
}

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

    /// Bytes from the thread pointer to the cell.
    #[inline(always)]
    #[must_use]
    pub fn offset(self) -> isize {
        self.offset
    }

    /// The slab this thread used last.
    #[inline(always)]
    #[must_use]
    pub fn get(self) -> &'static Slab<LISTS> {
        // SAFETY: a word of this thread that always names a live slab, by the contract of `at`.
        unsafe { &*(arch::load_word(self.offset) as *const Slab<LISTS>) }
    }

    /// Names another slab. One store: a signal handler sees the old one or the new one.
    #[inline(always)]
    pub fn set(self, slab: &'static Slab<LISTS>) {
        // SAFETY: a word of this thread, by the contract of `at`; `slab` lives for ever.
        unsafe { arch::store_word(self.offset, core::ptr::from_ref(slab) as usize) }
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
            // SAFETY: loads the link-time offset of the TLS word defined above, which starts as the
            // address of `$initial` and is changed by `ThreadCell::set` only.
            unsafe { $crate::sequence::ThreadCell::at($crate::__thread_offset!($symbol)) }
        }
    };
}

/// `asm!` with the shared first and last part around the files of one sequence.
#[cfg(target_arch = "x86_64")]
macro_rules! sequence {
    ($index:ty, $handle:expr, [$($file:literal),*], $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/x86_64/arm.s"),
            $(include_str!(concat!("../../asm/x86_64/", $file)),)*
            include_str!("../../asm/x86_64/abort.s"),
            handle = in(reg) $handle.0,
            RSEQ_CS = const RSEQ_CS - <$index>::TAG,
            INDEX = const <$index>::FIELD - <$index>::TAG,
            SIGNATURE = const SIGNATURE,
            $($operands)*
            options(nostack),
        )
    };
}

/// As on x86-64, but there is no addressing relative to the thread pointer, so the area's address is the
/// operand, and sequences need one register more.
#[cfg(target_arch = "aarch64")]
macro_rules! sequence {
    ($index:ty, $handle:expr, [$($file:literal),*], $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/aarch64/arm.s"),
            $(include_str!(concat!("../../asm/aarch64/", $file)),)*
            include_str!("../../asm/aarch64/abort.s"),
            area = in(reg) arch::thread_pointer() + $handle.0 - <$index>::TAG,
            RSEQ_CS = const RSEQ_CS,
            INDEX = const <$index>::FIELD,
            SIGNATURE = const SIGNATURE,
            id = out(reg) _,
            out("x16") _,
            out("x17") _,
            $($operands)*
            options(nostack),
        )
    };
}

/// What the cell operand of a slab's sequences is: an offset from the thread pointer.
#[cfg(target_arch = "x86_64")]
macro_rules! cell_operand {
    ($cell:expr) => {
        $cell.offset
    };
}

/// What the cell operand of a slab's sequences is: an address.
#[cfg(target_arch = "aarch64")]
macro_rules! cell_operand {
    ($cell:expr) => {
        arch::thread_pointer() + $cell.offset
    };
}

/// A sequence on a list of the slab that a cell names.
macro_rules! slab_sequence {
    ($file:literal, $index:ty, $handle:expr, $cell:expr, $list:expr, $($operands:tt)*) => {
        sequence!($index, $handle, [$file],
            cell = in(reg) cell_operand!($cell),
            list = in(reg) $list,
            slab = out(reg) _,
            TOPS = const TOPS,
            $($operands)*
        )
    };
}

/// A sequence on a word of the index's row.
#[cfg(target_arch = "x86_64")]
macro_rules! row_sequence {
    ($file:literal, $index:ty, $row:ty, $handle:expr, $rows:expr, $word:expr, $($operands:tt)*) => {
        sequence!($index, $handle, ["row.s", $file],
            base = in(reg) $rows.base(),
            rows = in(reg) $rows.count(),
            word = in(reg) $word,
            tmp = out(reg) _,
            SHIFT = const Rows::<$row, $index>::SHIFT,
            MOVED = const MOVED,
            $($operands)*
        )
    };
}

/// A sequence on a word of the index's row.
#[cfg(target_arch = "aarch64")]
macro_rules! row_sequence {
    ($file:literal, $index:ty, $row:ty, $handle:expr, $rows:expr, $word:expr, $($operands:tt)*) => {
        sequence!($index, $handle, ["row.s", $file],
            base = in(reg) $rows.base(),
            rows = in(reg) $rows.count(),
            word = in(reg) $word,
            tmp = out(reg) _,
            SHIFT = const Rows::<$row, $index>::SHIFT,
            MOVED = const MOVED,
            DONE = const DONE,
            $($operands)*
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
        slab_sequence!("pop.s", I, handle, cell, list,
            tmp = out(reg) _,
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
        slab_sequence!("push.s", I, handle, cell, list,
            object = in(reg) object.as_ptr(),
            tmp = out(reg) _,
            outcome = out(reg) outcome,
            MOVED = const MOVED,
            UNFIT = const UNFIT,
        );
    }
    done(outcome)
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
        slab_sequence!("pop_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_mut_ptr(),
            max = in(reg) objects.len(),
            count = out(reg) count,
            tmp = out(reg) _,
            top = out(reg) _,
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
        slab_sequence!("push_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_ptr(),
            max = in(reg) objects.len(),
            count = out(reg) count,
            tmp = out(reg) _,
            top = out(reg) _,
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
        slab_sequence!("replace.s", I, handle, cell, list,
            expected = in(reg) expected,
            new = in(reg) new,
            tmp = out(reg) _,
            outcome = out(reg) outcome,
            MOVED = const MOVED,
            UNFIT = const UNFIT,
            DONE = const DONE,
        );
    }
    done(outcome)
}

/// Adds `value`, wrapping, to word `word` of this index's row.
///
/// # Errors
///
/// [`Miss::Moved`]: the thread is not registered, or its index's row is stopped or not reserved.
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * `word` is the offset in [`crate::rows::Row<T>`] of an aligned 8-byte word that may hold any number.
#[inline(always)]
pub unsafe fn add<I: Index, T: Zeroed>(handle: Handle, rows: &Rows<T, I>, word: usize, value: u64) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("add.s", I, T, handle, rows, word,
            value = in(reg) value,
            outcome = out(reg) outcome,
        );
    }
    done(outcome)
}

/// Reads word `word` of this index's row, while the thread is on that index.
///
/// # Errors
///
/// [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * `word` is the offset in [`crate::rows::Row<T>`] of an aligned 8-byte word.
#[inline(always)]
pub unsafe fn load<I: Index, T: Zeroed>(handle: Handle, rows: &Rows<T, I>, word: usize) -> Result<u64, Miss> {
    let (outcome, value): (usize, u64);
    // SAFETY: by our own contract; nothing is stored.
    unsafe {
        row_sequence!("load.s", I, T, handle, rows, word,
            value = out(reg) value,
            outcome = out(reg) outcome,
        );
    }
    done(outcome).map(|()| value)
}

/// Writes word `word` of this index's row, while the thread is on that index.
///
/// # Errors
///
/// [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * As for [`add`].
#[inline(always)]
pub unsafe fn store<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
    value: u64,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("store.s", I, T, handle, rows, word,
            value = in(reg) value,
            outcome = out(reg) outcome,
        );
    }
    done(outcome)
}

/// Writes `new` to word `word` of this index's row if it holds `expected`.
///
/// # Errors
///
/// [`Miss::Unfit`]: it holds something else. [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * As for [`add`].
#[inline(always)]
pub unsafe fn compare_exchange<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
    expected: u64,
    new: u64,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("compare_exchange.s", I, T, handle, rows, word,
            expected = in(reg) expected,
            new = in(reg) new,
            outcome = out(reg) outcome,
            UNFIT = const UNFIT,
        );
    }
    done(outcome)
}

/// Puts `node` in front of the linked list that word `word` of this index's row begins. A node's first
/// word points to the next node.
///
/// # Errors
///
/// [`Miss::Moved`]: as for [`add`]. The node's first word may have been written.
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * `word` is the offset in [`crate::rows::Row<T>`] of an aligned word that is changed by the `linked_*`
///   sequences, or by the holder of the row's [`crate::rows::StoppedRow`], only.
/// * `node` is 8-aligned, on no list, and its first word is nobody else's.
#[inline(always)]
pub unsafe fn linked_push<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
    node: NonNull<usize>,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the store before the commit is to a node that is the caller's.
    unsafe {
        row_sequence!("linked_push.s", I, T, handle, rows, word,
            node = in(reg) node.as_ptr(),
            outcome = out(reg) outcome,
        );
    }
    done(outcome)
}

/// Takes the first node of the linked list that word `word` of this index's row begins.
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is empty. [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * As for [`linked_push`], without the node.
/// * Memory of nodes stays readable while another thread may be inside this sequence: who takes a node from
///   another index's row has stopped the row first.
#[inline(always)]
pub unsafe fn linked_pop<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
) -> Result<NonNull<usize>, Miss> {
    let (outcome, node): (usize, *mut usize);
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("linked_pop.s", I, T, handle, rows, word,
            node = out(reg) node,
            outcome = out(reg) outcome,
            UNFIT = const UNFIT,
        );
    }
    // SAFETY: the sequence leaves with a miss where the node is null.
    done(outcome).map(|()| unsafe { NonNull::new_unchecked(node) })
}

/// Takes the whole linked list that word `word` of this index's row begins, and returns its first node.
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is empty. [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * As for [`linked_push`], without the node.
#[inline(always)]
pub unsafe fn linked_pop_all<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
) -> Result<NonNull<usize>, Miss> {
    let (outcome, node): (usize, *mut usize);
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("linked_pop_all.s", I, T, handle, rows, word,
            node = out(reg) node,
            outcome = out(reg) outcome,
            UNFIT = const UNFIT,
        );
    }
    // SAFETY: the sequence leaves with a miss where the node is null.
    done(outcome).map(|()| unsafe { NonNull::new_unchecked(node) })
}

/// Appends `item` to the buffer at word `word` of this index's row: a length, then `capacity` items.
///
/// # Errors
///
/// [`Miss::Unfit`]: the buffer is full. [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * `word` is the offset in [`crate::rows::Row<T>`] of a length word followed by `capacity` words.
#[inline(always)]
pub unsafe fn append<I: Index, T: Zeroed>(
    handle: Handle,
    rows: &Rows<T, I>,
    word: usize,
    capacity: usize,
    item: u64,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the store before the commit is beyond the length.
    unsafe {
        row_sequence!("append.s", I, T, handle, rows, word,
            capacity = in(reg) capacity,
            item = in(reg) item,
            outcome = out(reg) outcome,
            UNFIT = const UNFIT,
        );
    }
    done(outcome)
}

/// Even outcomes are success.
#[inline(always)]
fn done(outcome: usize) -> Result<(), Miss> {
    if outcome & UNFIT == 0 { Ok(()) } else { Err(miss(outcome)) }
}

#[inline(always)]
fn miss(outcome: usize) -> Miss {
    if outcome == MOVED { Miss::Moved } else { Miss::Unfit }
}
