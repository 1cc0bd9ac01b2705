//! Which samples a run of the suite takes: a block holds every allocator once, and the baseline twice.

use super::arm::Arm;
use super::work::Work;
use crate::harness::place::{self, Planned};
use crate::pattern;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Amount {
    /// Blocks to a pattern.
    pub blocks: u64,
    /// Numbers of threads of a pattern that has several.
    pub threads: Vec<usize>,
    /// CPUs that the threads share.
    pub cpus: usize,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of every random choice.
    pub seed: u64,
}

/// A pattern on so many threads.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// Its name: the pattern's, with the threads where the run has several numbers of them.
    pub id: String,
    /// Name of the pattern.
    pub pattern: String,
    /// Threads.
    pub threads: usize,
    /// How many of them share a CPU.
    pub per_cpu: u64,
}

/// Every cell of these patterns, in the order of the report. None: there is no such pattern.
pub fn cells(patterns: &[String], threads: &[usize], cpus: usize) -> Option<Vec<Cell>> {
    let mut cells = Vec::new();
    for pattern in patterns {
        let one = |id: String, threads: usize| {
            let per_cpu = if cpus == 0 { 1 } else { threads.div_ceil(cpus) as u64 };
            Cell { id, pattern: pattern.clone(), threads, per_cpu }
        };
        match threads {
            _ if !pattern::threaded(pattern)? => cells.push(Cell { per_cpu: 1, ..one(pattern.clone(), 1) }),
            [threads] => cells.push(one(pattern.clone(), *threads)),
            several => {
                cells.extend(several.iter().map(|threads| one(format!("{pattern}/threads={threads}"), *threads)))
            }
        }
    }
    Some(cells)
}

/// Makes the plan. The baseline runs twice in each block.
pub fn make(cells: &[Cell], arms: &[Arm], baseline: &str, amount: &Amount) -> Vec<Planned<Work>> {
    let mut random = ChaCha8Rng::seed_from_u64(amount.seed);
    let mut subjects: Vec<_> = arms.iter().map(|arm| (arm.name.as_str(), false)).collect();
    subjects.push((baseline, true));
    let mut blocks = Vec::new();
    for cell in cells {
        for block in 0..amount.blocks {
            subjects.shuffle(&mut random);
            let invocation_seed = random.random();
            let one = |&(allocator, twin): &(&str, bool)| Planned {
                sample_id: place::name(&cell.id, block, allocator, twin),
                cell_id: cell.id.clone(),
                twin,
                block,
                order_index: 0,
                invocation_seed,
                env_pad: random.random_range(0..4096),
                skip: None,
                task: Work {
                    allocator: allocator.into(),
                    threads: cell.threads,
                    per_cpu: cell.per_cpu,
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
        let amount = Amount { blocks: 2, threads: vec![4, 16], cpus: 2, percent: 20, seed };
        make(&all(&amount.threads), &arms, "system", &amount)
    }

    fn all(threads: &[usize]) -> Vec<Cell> {
        let patterns: Vec<_> = PATTERNS.iter().map(|pattern| pattern.name.to_owned()).collect();
        cells(&patterns, threads, 2).expect("every pattern is there")
    }

    #[test]
    fn threads_that_share_a_cpu_share_its_work_and_one_number_of_them_is_in_no_name() {
        let named = |cells: &[Cell], id: &str| cells.iter().find(|cell| cell.id == id).cloned();
        let several = all(&[2, 4, 16]);
        assert_eq!(named(&several, "larson/threads=16").map(|cell| (cell.threads, cell.per_cpu)), Some((16, 8)));
        assert_eq!(named(&several, "churn").map(|cell| (cell.threads, cell.per_cpu)), Some((1, 1)));
        assert_eq!(named(&several, "larson"), None);
        assert_eq!(named(&all(&[2]), "larson").map(|cell| (cell.threads, cell.per_cpu)), Some((2, 1)));
        assert_eq!(cells(&["shbench".into()], &[2], 0).map(|cells| cells.len()), Some(1), "older runs have it");
        assert_eq!(cells(&["none".into()], &[2], 2), None);
    }

    #[test]
    fn a_block_holds_every_allocator_once_and_the_baseline_twice_and_all_do_the_same() {
        let plan = plan(1);
        assert_eq!(plan.len(), all(&[4, 16]).len() * 2 * 3);
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
