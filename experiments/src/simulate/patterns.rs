//! The suite's patterns as samples for guests.

use crate::definition::Parameters;
use crate::experiment::{self, Sample};
use crate::failure::Failure;
use crate::harness::place::{self, Planned};
use crate::host::limits::Limits;
use crate::pattern::PATTERNS;
use crate::subject::Subject;
use crate::workload;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;

/// The experiment that their rows name, and what their cells begin with.
const SUITE: &str = "suite";

/// How much of everything.
pub struct Amount<'a> {
    /// Threads for each CPU, of patterns that have several.
    pub threads_per_cpu: &'a [u64],
    /// Amount of work, 100 in the suite's standard profile.
    pub percent: u64,
    /// Starts of each.
    pub starts: u64,
    /// Seed that all others are drawn from.
    pub seed: u64,
}

/// Each pattern that matches on each subject. All subjects do the same work in a start.
pub fn samples(filter: &Regex, subjects: &[Subject], amount: &Amount, limits: &Limits) -> Result<Vec<Sample>, Failure> {
    let mut random = ChaCha8Rng::seed_from_u64(amount.seed);
    let mut numbers = amount.threads_per_cpu.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let mut samples = Vec::new();
    for pattern in PATTERNS.iter().filter(|pattern| filter.is_match(pattern.name)) {
        let workload = workload::of_pattern(pattern);
        let several = || numbers.iter().map(|number| ("threads_per_cpu", *number)).collect();
        for (name, number) in if pattern.threaded { several() } else { vec![("threads", 1)] } {
            let within =
                if pattern.threaded && numbers.len() > 1 { format!("/{name}={number}") } else { String::new() };
            let cell_id = format!("{SUITE}/{}{within}", pattern.name);
            let params: Parameters = [(name.into(), number), ("percent".into(), amount.percent)].into();
            for block in 0..amount.starts {
                let invocation_seed = random.random();
                samples.extend(subjects.iter().map(|subject| Planned {
                    sample_id: place::name(&cell_id, block, subject.name(), false),
                    cell_id: cell_id.clone(),
                    block,
                    invocation_seed,
                    skip: limits.refuse(&params, None),
                    ..experiment::single(SUITE, &workload, *subject, params.clone())
                }));
            }
        }
    }
    if samples.is_empty() {
        let known: Vec<_> = PATTERNS.iter().map(|pattern| pattern.name).collect();
        return Err(Failure::usage(format!(
            "no pattern matches --suite {filter}; expected one of {}",
            known.join(", ")
        )));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::BASELINE;
    use std::collections::BTreeSet;

    #[test]
    fn a_start_is_the_same_work_for_all_and_one_number_of_threads_is_in_no_name() {
        let of = |filter: &str, threads_per_cpu: &[u64]| {
            let amount = Amount { threads_per_cpu, percent: 3, starts: 2, seed: 5 };
            samples(&Regex::new(filter).unwrap(), &[BASELINE, Subject::System], &amount, &Limits::none())
        };
        let plan = of("^(larson|large)$", &[4, 1, 4]).unwrap();
        let cells: BTreeSet<_> = plan.iter().map(|sample| sample.cell_id.as_str()).collect();
        let named = ["suite/large", "suite/larson/threads_per_cpu=1", "suite/larson/threads_per_cpu=4"];
        assert_eq!(cells.into_iter().collect::<Vec<_>>(), named);
        assert_eq!(plan.len(), 3 * 2 * 2);
        for pair in plan.chunks(2) {
            assert_eq!(pair[0].invocation_seed, pair[1].invocation_seed);
            assert_eq!((&pair[0].cell_id, pair[0].block), (&pair[1].cell_id, pair[1].block));
            assert_ne!(pair[0].sample_id, pair[1].sample_id);
        }
        assert_ne!(plan[0].invocation_seed, plan[2].invocation_seed);
        assert!(of("^larson$", &[2]).unwrap().iter().all(|sample| sample.cell_id == "suite/larson"));
        assert!(of("^none$", &[1]).is_err());
    }
}
