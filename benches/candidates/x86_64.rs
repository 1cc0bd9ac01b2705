//! The sequences that are only here to be compared, put together from the files beside this one.

use std::arch::{asm, global_asm};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::abi::{Area, SIGNATURE};
use rseq::{Miss, Registration};

use super::Candidate;
use super::memory::{First, HEADERS, Header, SHIFT, Slabs, cpu};

const MOVED: usize = 3;
const UNFIT: usize = 1;

/// Where threads begin: no CPU has this id.
static NOBODYS: [u32; 2] = [rseq::STOPPED, 0];

global_asm!(
    ".pushsection .tdata.candidate_cell, \"awT\", @progbits",
    ".balign 8",
    ".globl candidate_cell",
    ".hidden candidate_cell",
    ".type candidate_cell, @object",
    "candidate_cell: .quad {nobodys}",
    ".size candidate_cell, 8",
    ".popsection",
    nobodys = sym NOBODYS,
);

/// Offset from the thread pointer of the word that names the slab used last.
#[inline(always)]
fn cell() -> isize {
    // SAFETY: loads the link-time offset of the word defined above.
    unsafe { rseq::__thread_offset!("candidate_cell") }
}

fn set_cell(slab: *mut u8) {
    // SAFETY: a word of this thread's that only sequences of this file read.
    unsafe { asm!("mov fs:[{}], {}", in(reg) cell(), in(reg) slab, options(nostack, preserves_flags)) };
}

fn outcome(word: usize) -> Result<usize, Miss> {
    match word {
        MOVED => Err(Miss::Moved),
        word if word & UNFIT != 0 => Err(Miss::Unfit),
        word => Ok(word),
    }
}

macro_rules! sequence {
    ([$($file:literal),*], $offset:expr, $list:expr, $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/x86_64/arm.s"),
            $(include_str!($file),)*
            include_str!("../../asm/x86_64/abort.s"),
            handle = in(reg) $offset,
            list = in(reg) $list,
            tmp = out(reg) _,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            INDEX = const offset_of!(Area, cpu_id),
            SIGNATURE = const SIGNATURE,
            HEADERS = const HEADERS,
            MOVED = const MOVED,
            $($operands)*
            options(nostack),
        )
    };
}

/// A candidate: how it finds the slab (with the operands that needs), and how a list is laid out (with those).
macro_rules! candidate {
    ($name:ident, $text:literal, $bounded:literal, $first:expr, $header:expr, $find:literal, [$($operands:tt)*],
     $pop:literal, [$($pop_operands:tt)*], $push:literal, [$($push_operands:tt)*], |$slabs:ident, $cpu:ident| $located:expr) => {
        #[derive(Clone, Copy)]
        pub struct $name {
            offset: isize,
            slabs: &'static Slabs,
        }

        impl Candidate for $name {
            const NAME: &'static str = $text;
            const BOUNDED: bool = $bounded;

            fn new(registration: &Registration) -> Self {
                $name { offset: registration.offset(), slabs: Slabs::leak($header, $first) }
            }

            #[inline(always)]
            fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
                let item: usize;
                // SAFETY: `offset` is of this thread's area, slabs are laid out as the files say, lists are below LISTS.
                unsafe {
                    sequence!([$find, $pop], self.offset, list,
                        slab = out(reg) _, item = out(reg) item, $($operands)* $($pop_operands)*);
                }
                // SAFETY: an even item is an object.
                outcome(item).map(|item| unsafe { NonNull::new_unchecked(item as *mut u8) })
            }

            #[inline(always)]
            fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
                let slab: usize;
                // SAFETY: as in `pop`; the object is this thread's.
                unsafe {
                    sequence!([$find, $push], self.offset, list,
                        slab = out(reg) slab, object = in(reg) object.as_ptr(), $($operands)* $($push_operands)*);
                }
                outcome(slab).map(drop)
            }

            fn locate(self) {
                let ($slabs, $cpu) = (self.slabs, cpu());
                $located;
            }
        }
    };
}

macro_rules! named {
    ($name:ident, $text:literal, $bounded:literal, $header:expr, $($files:tt)*) => {
        candidate!($name, $text, $bounded, First::Id, $header, "find_named.s", [cell = in(reg) cell(),], $($files)*,
            |slabs, cpu| set_cell(slabs.slab(cpu)));
    };
}

/// The slab of CPU 0 of the candidate that was located last.
static BASE: AtomicUsize = AtomicUsize::new(0);

macro_rules! indexed {
    ($name:ident, $text:literal, $header:expr, $($files:tt)*) => {
        candidate!($name, $text, true, First::Flag, $header, "find_indexed.s",
            [base = sym BASE, SHIFT = const SHIFT,], $($files)*,
            |slabs, cpu| {
                slabs.slab(cpu);
                BASE.store(slabs.base() as usize, Relaxed);
            });
    };
}

named!(NamedBase, "I, base", true, Header::Pointer, "pop_pointer.s", [], "push_pointer.s", [UNFIT = const UNFIT,]);
named!(NamedIndexed, "I, indexed", true, Header::Pointer, "pop_indexed.s", [], "push_indexed.s", [UNFIT = const UNFIT,]);
named!(NamedU32, "I, 32 bit", true, Header::U32, "pop_u32.s", [head = out(reg) _,],
    "push_u32.s", [head = out(reg) _, UNFIT = const UNFIT,]);
named!(NamedU16, "I, 16 bit", true, Header::U16, "pop_u16.s", [head = out(reg) _,],
    "push_u16.s", [head = out(reg) _, UNFIT = const UNFIT,]);
named!(NamedLinked, "I, linked", false, Header::Linked, "pop_linked.s", [UNFIT = const UNFIT,], "push_linked.s", []);
indexed!(IndexedPointer, "S8, pointer", Header::Pointer, "pop_pointer.s", [], "push_pointer.s", [UNFIT = const UNFIT,]);
indexed!(IndexedU32, "S8, 32 bit", Header::U32, "pop_u32.s", [head = out(reg) _,],
    "push_u32.s", [head = out(reg) _, UNFIT = const UNFIT,]);

/// I with the pointer header, and the kernel is not told: wrong, and as fast as I could be if telling were free.
#[derive(Clone, Copy)]
pub struct NotArmed {
    offset: isize,
    slabs: &'static Slabs,
}

macro_rules! unarmed {
    ($file:literal, $candidate:expr, $list:expr, $($operands:tt)*) => {
        asm!(
            include_str!("find_named.s"),
            include_str!($file),
            "4:",
            handle = in(reg) $candidate.offset,
            cell = in(reg) cell(),
            list = in(reg) $list,
            tmp = out(reg) _,
            INDEX = const offset_of!(Area, cpu_id),
            HEADERS = const HEADERS,
            MOVED = const MOVED,
            $($operands)*
            options(nostack),
        )
    };
}

impl Candidate for NotArmed {
    const NAME: &'static str = "not armed";

    fn new(registration: &Registration) -> Self {
        NotArmed { offset: registration.offset(), slabs: Slabs::leak(Header::Pointer, First::Id) }
    }

    #[inline(always)]
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        let item: usize;
        // SAFETY: as above where one thread uses the list; elsewhere objects are lost and doubled, but are objects.
        unsafe { unarmed!("pop_pointer.s", self, list, slab = out(reg) _, item = out(reg) item,) };
        // SAFETY: as above.
        outcome(item).map(|item| unsafe { NonNull::new_unchecked(item as *mut u8) })
    }

    #[inline(always)]
    fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let slab: usize;
        // SAFETY: as in `pop`.
        unsafe {
            unarmed!("push_pointer.s", self, list,
                slab = out(reg) slab, object = in(reg) object.as_ptr(), UNFIT = const UNFIT,);
        }
        outcome(slab).map(drop)
    }

    fn locate(self) {
        set_cell(self.slabs.slab(cpu()));
    }
}
