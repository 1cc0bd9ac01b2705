//! The word that every operation reads: which way inlined code goes to a cache, in this process.

use core::sync::atomic::{
    AtomicIsize, AtomicU8,
    Ordering::{Relaxed, Release},
};

use crate::mode::Mode;
use crate::place::Extent;
use crate::sync::Padded;

/// The word before the mode is decided, and in modes that have nothing inlined: inlined code goes the [`LOCAL`] way in a
/// slab that is nobody's, and finds nothing. As in all words but handles of rseq, the lowest bits, a handle's tag, are 0.
pub const OUT_OF_LINE: isize = 0;

/// By plain loads and stores in the slab that the thread's cell names, its own.
pub const LOCAL: isize = 1 << 2;

/// As [`LOCAL`] in the slab that the thread's home names, after it has entered the gate.
pub const GATED: isize = 2 << 2;

/// As [`OUT_OF_LINE`] in every mode: each operation comes to the slow path, where it is counted for the heap profile.
pub const PROFILED: isize = 3 << 2;

struct Way {
    word: AtomicIsize,
    behind: AtomicIsize,
    mode: AtomicU8,
}

/// Set once, before the first allocation returns. Every operation reads it, so it shares its line with nothing.
static WAY: Padded<Way> =
    Padded(Way { word: AtomicIsize::new(OUT_OF_LINE), behind: AtomicIsize::new(OUT_OF_LINE), mode: AtomicU8::new(0) });

/// Where the word is, and what stands beside it.
pub const fn extent() -> Extent {
    Extent::of(&raw const WAY)
}

/// A handle of rseq, or one of the words of this module.
#[inline(always)]
pub fn word() -> isize {
    WAY.word.load(Relaxed) // set once; nothing else is read through it
}

/// The word of the mode, also where [`word`] is [`PROFILED`].
#[inline]
pub fn behind() -> isize {
    WAY.behind.load(Relaxed) // as `word`
}

/// The mode of this process. `None` before it is decided.
#[inline]
pub fn mode() -> Option<Mode> {
    Mode::from_number(WAY.mode.load(Relaxed)) // as `word`
}

/// Sets out on the way of `mode`, whose word is `behind`. By the thread that decides, once.
pub fn set(mode: Mode, behind: isize, profiled: bool) {
    let word = if profiled { PROFILED } else { behind };
    WAY.mode.store(mode.number(), Relaxed);
    WAY.behind.store(behind, Relaxed);
    WAY.word.store(word, Release);
}
