//! Instructions of the guest that mean something here. `perseq simulate`'s part in the guest executes them, and has the
//! same numbers.

/// Look at accesses from now on.
pub const LOOK: usize = 1;
/// Count from now on.
pub const START: usize = 2;
/// Count no more.
pub const STOP: usize = 3;
/// The measured part begins: forget what was counted.
pub const BEGIN: usize = 5;
/// The measured part is over: count no more.
pub const END: usize = 6;

/// The displacement of the first mark, less one. Nothing that a compiler or the kernel emits has it.
const BASE: u32 = 0x5053_5100;

/// The number of a mark: `nopl BASE+n(%rax,%rax,1)`.
pub fn mark(bytes: &[u8]) -> Option<usize> {
    let displacement = bytes.strip_prefix(&[0x0F, 0x1F, 0x84, 0x00])?;
    let displacement = u32::from_le_bytes(displacement.try_into().ok()?);
    let number = displacement.checked_sub(BASE)? as usize;
    matches!(number, LOOK | START | STOP | BEGIN | END).then_some(number)
}

/// Whether it is the store of the self-test: `mov %rcx, BASE+4(%rax)`.
pub fn is_test(bytes: &[u8]) -> bool {
    bytes.strip_prefix(&[0x48, 0x89, 0x88]) == Some(&(BASE + 4).to_le_bytes())
}

/// Tiers of an allocator, in the order of their numbers. What is in none is the program's.
pub const TIERS: [&str; 6] = ["caches", "transfer_caches", "spans", "page_map", "page_heap", "shared"];

/// The displacement of the first load that tells a range, less [`BASE`].
const TELL: u32 = 0x10;

/// If it is a load that tells a range, `mov BASE+TELL+2*tier(%rax), %cl` of its first byte and one more of its last: of
/// which tier, and which end.
pub fn told(bytes: &[u8]) -> Option<(usize, End)> {
    let displacement = u32::from_le_bytes(bytes.strip_prefix(&[0x8A, 0x88])?.try_into().ok()?);
    let number = displacement.checked_sub(BASE + TELL)? as usize;
    let end = if number.is_multiple_of(2) { End::First } else { End::Last };
    (number / 2 < TIERS.len()).then_some((number / 2, end))
}

/// If it is an access that marks an object, `mov %cl, BASE+0x20(%rax)` where it is handed out and `mov BASE+0x21(%rax), %cl`
/// where it is given back: which of the two.
pub fn object(bytes: &[u8]) -> Option<Passing> {
    let is = |opcode: u8, number: u32| {
        bytes.strip_prefix(&[opcode, 0x88]).is_some_and(|operand| operand == (BASE + number).to_le_bytes())
    };
    if is(0x88, 0x20) { Some(Passing::HandedOut) } else { is(0x8A, 0x21).then_some(Passing::GivenBack) }
}

/// Where an object goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passing {
    HandedOut,
    GivenBack,
}

/// An end of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    First,
    Last,
}

/// Whether it is `syscall`.
pub fn is_system_call(bytes: &[u8]) -> bool {
    bytes == [0x0F, 0x05]
}
