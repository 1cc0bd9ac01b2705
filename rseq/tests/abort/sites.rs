//! Each sequence at exactly one place in the program, so that it has one descriptor per index.
//!
//! Contracts are those of the sequences; the cell and the words are this test's.
#![allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)] // said above, once for all

use super::*;
use rseq::Handle;

type Result<T> = std::result::Result<T, Miss>;

#[inline(never)]
pub unsafe fn pop<I: Index>(handle: Handle) -> Result<NonNull<u8>> {
    unsafe { sequence::pop::<I, 2>(handle, cell(), 0) }
}
#[inline(never)]
pub unsafe fn push<I: Index>(handle: Handle, object: NonNull<u8>) -> Result<()> {
    unsafe { sequence::push::<I, 2>(handle, cell(), 0, object) }
}
#[inline(never)]
pub unsafe fn pop_batch<I: Index>(handle: Handle, objects: &mut [*mut u8]) -> Result<usize> {
    unsafe { sequence::pop_batch::<I, 2>(handle, cell(), 0, objects) }
}
#[inline(never)]
pub unsafe fn push_batch<I: Index>(handle: Handle, objects: &[*mut u8]) -> Result<usize> {
    unsafe { sequence::push_batch::<I, 2>(handle, cell(), 0, objects) }
}
#[inline(never)]
pub unsafe fn replace<I: Index>(handle: Handle, expected: *mut Slot, new: *mut Slot) -> Result<()> {
    unsafe { sequence::replace::<I, 2>(handle, cell(), 0, expected, new) }
}
#[inline(never)]
pub unsafe fn add<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
    unsafe { sequence::add(handle, rows, NUMBER, 2) }
}
#[inline(never)]
pub unsafe fn load<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<u64> {
    unsafe { sequence::load(handle, rows, NUMBER) }
}
#[inline(never)]
pub unsafe fn store<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
    unsafe { sequence::store(handle, rows, NUMBER, 77) }
}
#[inline(never)]
pub unsafe fn compare_exchange<I: Index>(handle: Handle, rows: &Rows<Words, I>, expected: u64) -> Result<()> {
    unsafe { sequence::compare_exchange(handle, rows, NUMBER, expected, 78) }
}
#[inline(never)]
pub unsafe fn linked_push<I: Index>(handle: Handle, rows: &Rows<Words, I>, node: NonNull<usize>) -> Result<()> {
    unsafe { sequence::linked_push(handle, rows, HEAD, node) }
}
#[inline(never)]
pub unsafe fn linked_pop<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<NonNull<usize>> {
    unsafe { sequence::linked_pop(handle, rows, HEAD) }
}
#[inline(never)]
pub unsafe fn linked_pop_all<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<NonNull<usize>> {
    unsafe { sequence::linked_pop_all(handle, rows, HEAD) }
}
#[inline(never)]
pub unsafe fn append<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
    unsafe { sequence::append(handle, rows, BUFFER, CAPACITY, 55) }
}
#[inline(never)]
pub unsafe fn take<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<u64> {
    unsafe { sequence::take(handle, rows, BUFFER) }
}
#[inline(never)]
pub unsafe fn early_commit<I: Index>(handle: Handle, word: &AtomicU64) {
    unsafe {
        std::arch::asm!(
            include_str!("../../asm/x86_64/arm.s"),
            "add qword ptr [{word}], 2",
            "nop",
            include_str!("../../asm/x86_64/abort.s"),
            handle = in(reg) handle.to_bits() - I::TAG,
            word = in(reg) word,
            tmp = out(reg) _,
            RSEQ_CS = const std::mem::offset_of!(rseq::abi::Area, rseq_cs),
            SIGNATURE = const rseq::abi::SIGNATURE,
            options(nostack),
        );
    }
}
