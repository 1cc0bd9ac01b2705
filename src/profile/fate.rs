//! What became of samples: on which CPU and by which thread they were freed, and how long they lived.
//!
//! Known of samples alone, so other blocks cost nothing for it. What is counted here of a site's samples stands for as much
//! of its blocks as all else that is counted of them: a reader weights it alike.

use core::mem::offset_of;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use crate::decided;
use crate::os;
use crate::place::bytes;
use crate::profile::in_use::UNKNOWN_CPU;
use crate::this_thread;

/// Groups of ages: the first is below [`FIRST_AGE`], each further one ten times as wide, and the last has no end.
pub const AGES: usize = 9;
/// Nanoseconds. A sample lives not much less: its stack is walked.
pub const FIRST_AGE: u64 = 10_000;

/// When, where and by whom a sample was allocated.
#[derive(Clone, Copy)]
pub struct Birth {
    /// Nanoseconds of a clock that only goes forward.
    time: u64,
    cpu: u32,
    thread: u32,
}

impl Birth {
    /// Now, here and by the calling thread. Once the process [is ready](decided::is_ready).
    pub fn now() -> Self {
        Birth { time: os::nanoseconds(), cpu: decided::current_cpu(), thread: this_thread::number() }
    }

    /// The CPU, or [`UNKNOWN_CPU`].
    pub fn cpu(self) -> u32 {
        self.cpu
    }

    /// As two words.
    pub fn words(self) -> [u64; 2] {
        [self.time, u64::from(self.cpu) << 32 | u64::from(self.thread)]
    }

    /// What [`words`](Self::words) made.
    pub fn of_words([time, place]: [u64; 2]) -> Self {
        Birth { time, cpu: (place >> 32) as u32, thread: place as u32 }
    }
}

/// What became of the samples of a site.
pub struct Fates {
    other_cpu: AtomicU64,
    other_thread: AtomicU64,
    ages: [AtomicU64; AGES],
}

/// What was counted of it: numbers of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FateCounts {
    /// Freed on another CPU than the one they were allocated on.
    pub other_cpu: u64,
    /// Freed by another thread than the one that allocated them.
    pub other_thread: u64,
    /// By how long they lived: all of which this is known.
    pub ages: [u64; AGES],
}

impl FateCounts {
    /// Samples of which it is known.
    pub fn freed(&self) -> u64 {
        self.ages.iter().sum()
    }
}

impl Fates {
    /// Where it has words of 64 bits: frees on another CPU, by another thread, and [`AGES`] of ages.
    pub const LAYOUT: [u32; 3] =
        [bytes(offset_of!(Fates, other_cpu)), bytes(offset_of!(Fates, other_thread)), bytes(offset_of!(Fates, ages))];

    pub const fn new() -> Self {
        Fates {
            other_cpu: AtomicU64::new(0),
            other_thread: AtomicU64::new(0),
            ages: [const { AtomicU64::new(0) }; AGES],
        }
    }

    /// A sample that was born then is freed now, here and by the calling thread.
    pub fn count(&self, born: Birth) {
        let now = Birth::now();
        // The age first, which `counts` reads last: there are no more of a kind than there are.
        self.ages[group(now.time.saturating_sub(born.time))].fetch_add(1, Release);
        if now.cpu != born.cpu && now.cpu != UNKNOWN_CPU && born.cpu != UNKNOWN_CPU {
            self.other_cpu.fetch_add(1, Release);
        }
        if now.thread != born.thread {
            self.other_thread.fetch_add(1, Release);
        }
    }

    /// What was counted. Exact if nothing is freed meanwhile.
    pub fn counts(&self) -> FateCounts {
        let (other_cpu, other_thread) = (self.other_cpu.load(Acquire), self.other_thread.load(Acquire));
        FateCounts { other_cpu, other_thread, ages: self.ages.each_ref().map(|age| age.load(Acquire)) }
    }
}

/// The group of an age in nanoseconds.
fn group(age: u64) -> usize {
    let (mut group, mut end) = (0, FIRST_AGE);
    while group + 1 < AGES && age >= end {
        (group, end) = (group + 1, end * 10);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_grouped_by_powers_of_ten() {
        for (age, expected) in [
            (0, 0),
            (9_999, 0),
            (10_000, 1),
            (99_999, 1),
            (100_000, 2),
            (1_000_000_000, 6),
            (99_999_999_999, 7),
            (100_000_000_000, 8),
            (u64::MAX, 8),
        ] {
            assert_eq!(group(age), expected, "{age}");
        }
    }

    #[test]
    fn a_birth_is_kept_in_two_words() {
        let birth = Birth { time: 1 << 60, cpu: 63, thread: 12345 };
        let Birth { time, cpu, thread } = Birth::of_words(birth.words());
        assert_eq!((time, cpu, thread), (1 << 60, 63, 12345));
    }
}
