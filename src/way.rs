//! The word that every operation reads: which way inlined code goes to a cache, in this process.

use core::sync::atomic::{
    AtomicIsize, AtomicU8,
    Ordering::{Relaxed, Release},
};

use crate::mode::Mode;
use crate::place::Extent;
use crate::sync::Padded;

/// The word before the mode is decided. Inlined code goes the [`LOCAL`] way and finds nothing.
const UNDECIDED: isize = 0;

/// By plain loads and stores in the slab that the thread's cell names: the thread's own, or nobody's, in the modes
/// whose threads leave the cell as it was. As for all words but handles of rseq, the lowest bits, a handle's tag, are
/// 0.
pub const LOCAL: isize = 1 << 2;

/// As [`LOCAL`] in the slab that the thread's home names, after it has entered the gate.
pub const GATED: isize = 2 << 2;

/// As [`LOCAL`], in threads that all leave their cell as it was: inlined code finds nothing, and each operation comes to
/// the slow path, where it is counted for the heap profile.
pub const PROFILED: isize = 3 << 2;

struct Way {
    word: AtomicIsize,
    behind: AtomicIsize,
    mode: AtomicU8,
}

/// Set once, before the first allocation returns. Every operation reads it, so it shares its line with nothing.
static WAY: Padded<Way> =
    Padded(Way { word: AtomicIsize::new(UNDECIDED), behind: AtomicIsize::new(UNDECIDED), mode: AtomicU8::new(0) });

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
