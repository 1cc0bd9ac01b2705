//! What is timed: three orders of pops and pushes, compiled for each candidate at four places in a cache line.

use std::ptr::NonNull;

use super::{CAPACITY, Candidate, LIST, Object};

/// An order of pops and pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    Same,
    Sixteen,
    Eight,
}

impl Pattern {
    pub const ALL: [Pattern; 3] = [Pattern::Same, Pattern::Sixteen, Pattern::Eight];

    pub fn name(self) -> &'static str {
        match self {
            Pattern::Same => "the same list again",
            Pattern::Sixteen => "16 pops, then 16 pushes",
            Pattern::Eight => "eight lists in turn",
        }
    }

    /// Pops and pushes of one repetition.
    pub fn operations(self) -> u32 {
        match self {
            Pattern::Same => 2,
            Pattern::Sixteen => 32,
            Pattern::Eight => 16,
        }
    }
}

/// What a candidate does, so that equals are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// That of the crate's sequences.
    Same,
    /// Less.
    Less,
    /// For one thread.
    Thread,
}

/// A candidate that is ready to be timed.
pub struct Entry {
    pub name: &'static str,
    pub job: Job,
    /// Makes the calling thread's next operation find its lists.
    pub prepare: Box<dyn Fn()>,
    /// So many repetitions of a pattern, by the copy of its code at one of [`PLACES`].
    pub run: Box<dyn Fn(Pattern, usize, u64)>,
}

/// Where code lies changes what it costs by up to a cycle. Each pattern is compiled this many times, 16 bytes further on in a
/// cache line each, and rounds choose among the copies at random.
pub const PLACES: usize = 4;

pub fn entry<C: Candidate>(candidate: C, job: Job) -> Entry {
    candidate.locate();
    for list in (0..8).chain([LIST + 1]) {
        for object in Object::leak(CAPACITY / 2) {
            push(candidate, list, object.pointer());
        }
    }
    let run = move |pattern, place, repetitions| {
        let function: fn(C, u64) = match pattern {
            Pattern::Same => [same::<C, 0>, same::<C, 16>, same::<C, 32>, same::<C, 48>][place],
            Pattern::Sixteen => [sixteen::<C, 0>, sixteen::<C, 16>, sixteen::<C, 32>, sixteen::<C, 48>][place],
            Pattern::Eight => [eight::<C, 0>, eight::<C, 16>, eight::<C, 32>, eight::<C, 48>][place],
        };
        function(candidate, repetitions);
    };
    Entry { name: C::NAME, job, prepare: Box::new(move || candidate.locate()), run: Box::new(run) }
}

/// Moves what follows by so many bytes.
macro_rules! shift {
    ($bytes:expr) => {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: instructions without effect.
        unsafe {
            std::arch::asm!(".skip {}, 0x90", const $bytes, options(nomem, nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!(".rept {} / 4", "nop", ".endr", const $bytes, options(nomem, nostack, preserves_flags));
        }
    };
}

#[inline(never)]
fn same<C: Candidate, const BYTES: usize>(candidate: C, repetitions: u64) {
    shift!(BYTES);
    for _ in 0..repetitions {
        let object = hide(pop(candidate, LIST));
        push(candidate, LIST, object);
    }
}

#[inline(never)]
fn sixteen<C: Candidate, const BYTES: usize>(candidate: C, repetitions: u64) {
    let mut objects = [NonNull::<u8>::dangling(); 16];
    shift!(BYTES);
    for _ in 0..repetitions {
        for object in &mut objects {
            *object = hide(pop(candidate, LIST));
        }
        for &object in objects.iter().rev() {
            push(candidate, LIST, object);
        }
    }
}

#[inline(never)]
fn eight<C: Candidate, const BYTES: usize>(candidate: C, repetitions: u64) {
    shift!(BYTES);
    for _ in 0..repetitions {
        for list in 0..8 {
            let object = hide(pop(candidate, list));
            push(candidate, list, object);
        }
    }
}

#[inline(always)]
fn pop<C: Candidate>(candidate: C, list: usize) -> NonNull<u8> {
    match candidate.pop(list) {
        Ok(object) => object,
        Err(_) => pop_again(candidate, list),
    }
}

#[inline(always)]
fn push<C: Candidate>(candidate: C, list: usize, object: NonNull<u8>) {
    if candidate.push(list, object).is_err() {
        push_again(candidate, list, object);
    }
}

/// A pinned thread comes here once at most. A list is never empty or full.
#[cold]
#[inline(never)]
fn pop_again<C: Candidate>(candidate: C, list: usize) -> NonNull<u8> {
    candidate.locate();
    candidate.pop(list).expect("an object on this CPU; is the benchmark pinned?")
}

#[cold]
#[inline(never)]
fn push_again<C: Candidate>(candidate: C, list: usize, object: NonNull<u8>) {
    candidate.locate();
    candidate.push(list, object).expect("room on this CPU");
}

/// The object comes from somewhere, as far as the compiler knows. It stays in its register.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "there is no instruction that could follow it")]
fn hide(object: NonNull<u8>) -> NonNull<u8> {
    let mut pointer = object.as_ptr();
    // SAFETY: no instruction, so the pointer is the same.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) pointer, options(nomem, nostack, preserves_flags));
        NonNull::new_unchecked(pointer)
    }
}
