//! Which samples a run of the suite takes, in which order: blocks as in [`crate::plan`].

use super::arm::Arm;
use crate::pattern::Pattern;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One sample to take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Unique in its run.
    pub sample_id: String,
    /// Name of the pattern.
    pub cell_id: String,
    /// Name of the allocator.
    pub allocator: String,
    /// Whether this is the second sample of the baseline in its block.
    pub twin: bool,
    /// Number of the block within its pattern.
    pub block: u64,
    /// Place in the run.
    pub order_index: u64,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of sizes and choices: the same for all samples of a block, so that all do the same work.
    pub invocation_seed: u64,
    /// Bytes of padding in the environment, so that the stack starts elsewhere.
    pub env_pad: u64,
}

impl Planned {
    /// Expected time.
    pub fn estimate(&self) -> Duration {
        Duration::from_millis(50 + 7 * self.percent)
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Blocks to a pattern.
    pub blocks: u64,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of every random choice.
    pub seed: u64,
}

/// Makes the plan. The baseline runs twice in each block.
pub fn make(patterns: &[&Pattern], arms: &[Arm], baseline: &str, amount: &Amount) -> Vec<Planned> {
    let mut random = ChaCha8Rng::seed_from_u64(amount.seed);
    let mut subjects: Vec<_> = arms.iter().map(|arm| (arm.name.as_str(), false)).collect();
    subjects.push((baseline, true));
    let mut blocks = Vec::new();
    for pattern in patterns {
        for block in 0..amount.blocks {
            subjects.shuffle(&mut random);
            let invocation_seed = random.random();
            let one = |&(allocator, twin): &(&str, bool)| Planned {
                sample_id: format!("{}/block={block}/{allocator}{}", pattern.name, if twin { "-twin" } else { "" }),
                cell_id: pattern.name.into(),
                allocator: allocator.into(),
                twin,
                block,
                order_index: 0,
                threads: if pattern.threaded { amount.threads } else { 1 },
                percent: amount.percent,
                invocation_seed,
                env_pad: random.random_range(0..4096),
            };
            blocks.push(subjects.iter().map(one).collect::<Vec<_>>());
        }
    }
    blocks.shuffle(&mut random);
    let mut plan: Vec<_> = blocks.into_iter().flatten().collect();
    plan.iter_mut().enumerate().for_each(|(index, planned)| planned.order_index = index as u64);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::PATTERNS;

    fn plan(seed: u64) -> Vec<Planned> {
        let arms = ["system", "rival"].map(Arm::bare);
        let patterns: Vec<_> = PATTERNS.iter().collect();
        make(&patterns, &arms, "system", &Amount { blocks: 2, threads: 4, percent: 20, seed })
    }

    #[test]
    fn a_block_holds_every_allocator_once_and_the_baseline_twice_and_all_do_the_same() {
        let plan = plan(1);
        assert_eq!(plan.len(), PATTERNS.len() * 2 * 3);
        for block in plan.chunks(3) {
            assert!(block.iter().all(|planned| planned.cell_id == block[0].cell_id && planned.block == block[0].block));
            assert!(block.iter().all(|planned| planned.invocation_seed == block[0].invocation_seed));
            assert_eq!(block.iter().filter(|planned| planned.allocator == "system").count(), 2);
            assert_eq!(block.iter().filter(|planned| planned.twin && planned.allocator == "system").count(), 1);
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }
}
