//! Which samples a run of the suite takes: a block holds every allocator once, and the baseline twice.

use super::arm::Arm;
use super::work::Work;
use crate::harness::place::{self, Planned};
use crate::pattern::Pattern;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
pub fn make(patterns: &[&Pattern], arms: &[Arm], baseline: &str, amount: &Amount) -> Vec<Planned<Work>> {
    let mut random = ChaCha8Rng::seed_from_u64(amount.seed);
    let mut subjects: Vec<_> = arms.iter().map(|arm| (arm.name.as_str(), false)).collect();
    subjects.push((baseline, true));
    let mut blocks = Vec::new();
    for pattern in patterns {
        for block in 0..amount.blocks {
            subjects.shuffle(&mut random);
            let invocation_seed = random.random();
            let one = |&(allocator, twin): &(&str, bool)| Planned {
                sample_id: place::name(pattern.name, block, allocator, twin),
                cell_id: pattern.name.into(),
                twin,
                block,
                order_index: 0,
                invocation_seed,
                env_pad: random.random_range(0..4096),
                skip: None,
                task: Work {
                    allocator: allocator.into(),
                    threads: if pattern.threaded { amount.threads } else { 1 },
                    percent: amount.percent,
                },
            };
            blocks.push(subjects.iter().map(one).collect::<Vec<_>>());
        }
    }
    place::numbered(place::shuffled(blocks, &mut random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::PATTERNS;

    fn plan(seed: u64) -> Vec<Planned<Work>> {
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
            assert_eq!(block.iter().filter(|planned| planned.task.allocator == "system").count(), 2);
            assert_eq!(block.iter().filter(|planned| planned.twin && planned.task.allocator == "system").count(), 1);
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }
}
