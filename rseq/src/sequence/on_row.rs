//! Sequences on a word of the index's row.

use core::arch::asm;
use core::ptr::NonNull;

use super::{Miss, UNFIT, done};
use crate::index::Index;
use crate::rows::{Rows, Zeroed};
use crate::thread::Handle;

/// Adds `value`, wrapping, to word `word` of this index's row.
///
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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
/// Cost and kernel version: [the table](crate::sequence).
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

/// Removes the last item of the buffer at word `word` of this index's row: a length, then the items.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Unfit`]: the buffer is empty. [`Miss::Moved`]: as for [`add`].
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * `word` is the offset in [`crate::rows::Row<T>`] of an aligned length, followed by at least so many words. Both are
///   changed by [`append`] and this, or by the holder of the row's [`crate::rows::StoppedRow`], only.
#[inline(always)]
pub unsafe fn take<I: Index, T: Zeroed>(handle: Handle, rows: &Rows<T, I>, word: usize) -> Result<u64, Miss> {
    let (outcome, item): (usize, u64);
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        row_sequence!("take.s", I, T, handle, rows, word,
            item = out(reg) item,
            outcome = out(reg) outcome,
            UNFIT = const UNFIT,
        );
    }
    done(outcome).map(|()| item)
}
