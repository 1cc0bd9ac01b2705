//! How much a pattern is to do, and what it did.

use super::object::Tally;

/// How much work.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// How many of them share a CPU: each does so much less, and the CPU the same.
    pub per_cpu: u64,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of every size and choice.
    pub seed: u64,
}

impl Setting {
    /// What each thread does of the `rounds` that a CPU does in the standard profile; 1 at least.
    pub fn each(&self, rounds: u64) -> u64 {
        (rounds * self.percent / 100 / self.per_cpu.max(1)).max(1)
    }

    /// `rounds` of the standard profile in this one; 1 at least.
    pub fn rounds(&self, rounds: u64) -> u64 {
        (rounds * self.percent / 100).max(1)
    }
}

/// What was done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Blocks allocated or resized.
    pub operations: u64,
    /// Sum of the words read back.
    pub found: u64,
    /// Sum of the words written.
    pub expected: u64,
}

impl From<Tally> for Outcome {
    fn from(tally: Tally) -> Outcome {
        Outcome { operations: tally.operations, found: tally.found, expected: tally.expected }
    }
}
