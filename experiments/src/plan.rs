//! Which samples a run takes, and in which order. Made before the first sample and written down.
//!
//! A block is one shuffled pass over the subjects of one cell, twin included. The blocks of all cells are
//! shuffled among each other, so that no mode owns a part of the day. The same seed gives the same plan.

use crate::definition::{Definition, Parameters, ProfileCells, Rule};
use crate::failure::Failure;
use crate::host::limits::Limits;
use crate::subject::{Subject, TWINNED};
use crate::workload::Order;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// One sample to take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Unique in its run.
    pub sample_id: String,
    /// The definition's id.
    pub experiment: String,
    /// Experiment, rule and varied parameters.
    pub cell_id: String,
    /// The workload.
    pub workload: String,
    /// What it is told.
    pub params: Parameters,
    /// The fairness rule; null where the allocator's own capacity is used.
    pub fairness: Option<Rule>,
    /// What is measured.
    pub mode_requested: Subject,
    /// Whether this is the second of the two equal subjects of a block.
    pub twin: bool,
    /// Number of the block within its cell.
    pub block: u64,
    /// Place in the run.
    pub order_index: u64,
    /// Seed of the values written into objects.
    pub invocation_seed: u64,
    /// Bytes of padding in the environment, so that the stack starts elsewhere.
    pub env_pad: u64,
    /// Group of counters it reads: a sample of the counter pass, whose time is not used. Null: a timing sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_group: Option<String>,
    /// The trace it replays. Runs never have one, so that no path is in their files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_file: Option<PathBuf>,
    /// Why this sample is not going to be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
}

impl Planned {
    /// What the worker is told.
    pub fn order(&self) -> Order {
        Order {
            workload: self.workload.clone(),
            parameters: self.params.clone(),
            subject: self.mode_requested,
            seed: self.invocation_seed,
            counters: self.counter_group.clone(),
            trace_file: self.trace_file.clone(),
        }
    }

    /// The measured time asked for.
    pub fn measure(&self) -> Duration {
        Duration::from_millis(self.params.get("measure_ms").copied().unwrap_or(0))
    }

    /// Expected time of the whole sample: measured part, warm-up, start and end of a process.
    pub fn estimate(&self) -> Duration {
        if self.skip.is_some() { Duration::ZERO } else { self.measure().mul_f64(1.15) + Duration::from_millis(80) }
    }

    /// Environment of the worker: mode, capacity and padding.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("ENVIRONMENT_PAD", "x".repeat(self.env_pad as usize))];
        if let Subject::Perseq(mode) = self.mode_requested {
            variables.push(("PERSEQ_MODE", mode.name().into()));
        }
        let parameter = |name: &str| self.params.get(name).map(u64::to_string);
        // The same in every mode; not all of them empty idle caches.
        variables.extend(parameter("idle_drain_ms").map(|ms| ("PERSEQ_IDLE_DRAIN", ms)));
        match self.fairness {
            Some(Rule::A) => variables.extend(parameter("cache_bytes").map(|bytes| ("PERSEQ_CACHE_BYTES", bytes))),
            Some(Rule::B) => variables.extend(parameter("total_bytes").map(|bytes| ("PERSEQ_TOTAL_BYTES", bytes))),
            None => {}
        }
        variables
    }
}

/// What the command line chose.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Name of the profile.
    pub profile: String,
    /// Cells whose id or title matches.
    pub filter: Option<Regex>,
    /// Subjects instead of the profile's.
    pub modes: Option<Vec<Subject>>,
    /// Blocks instead of the profile's.
    pub blocks: Option<u64>,
    /// Measured time instead of the profile's.
    pub measure_ms: Option<u64>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Groups of counters to read in a pass of its own.
    pub counters: Vec<String>,
}

/// Samples of the counter pass for each group, cell and subject: counts vary less than times.
const COUNTED: u64 = 3;

/// Makes the plan.
pub fn make(definitions: &[Definition], choice: &Choice, limits: &Limits) -> Result<Vec<Planned>, Failure> {
    let mut random = ChaCha8Rng::seed_from_u64(choice.seed);
    let mut blocks = Vec::new();
    for definition in definitions {
        let Some(profile) = definition.profiles.get(&choice.profile) else {
            continue;
        };
        let profile = ProfileCells { measure_ms: choice.measure_ms.unwrap_or(profile.measure_ms), ..profile.clone() };
        for cell in definition.cells(&profile, limits.cpus) {
            let matches = |regex: &Regex| regex.is_match(&cell.id) || regex.is_match(&definition.title);
            if !choice.filter.as_ref().is_none_or(matches) {
                continue;
            }
            let modes = choice.modes.clone().unwrap_or_else(|| profile.modes.clone());
            let mut subjects: Vec<_> = modes.into_iter().map(|subject| (subject, false)).collect();
            if subjects.contains(&(TWINNED, false)) {
                subjects.push((TWINNED, true));
            }
            let skip = limits.refuse(&cell.parameters, cell.rule);
            for block in 0..choice.blocks.unwrap_or(profile.blocks) {
                subjects.shuffle(&mut random);
                blocks.push(
                    subjects
                        .iter()
                        .map(|&(subject, twin)| Planned {
                            sample_id: format!(
                                "{}/block={block}/{subject}{}",
                                cell.id,
                                if twin { "-twin" } else { "" }
                            ),
                            experiment: definition.id.clone(),
                            cell_id: cell.id.clone(),
                            workload: definition.workload.clone(),
                            params: cell.parameters.clone(),
                            fairness: cell.rule,
                            mode_requested: subject,
                            twin,
                            block,
                            order_index: 0,
                            invocation_seed: random.random(),
                            env_pad: random.random_range(0..4096),
                            counter_group: None,
                            trace_file: None,
                            skip: skip.clone().or_else(|| limits.refuse_subject(subject)),
                        })
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
    if blocks.is_empty() {
        let filter = choice.filter.as_ref().map_or("(none)", Regex::as_str);
        return Err(Failure::usage(format!(
            "no cell of profile {} matches --filter {filter}; see `perseq list`",
            choice.profile
        )));
    }
    blocks.shuffle(&mut random);
    let mut plan: Vec<_> = blocks.into_iter().flatten().collect();
    let mut counted: Vec<_> = plan
        .iter()
        .filter(|planned| planned.block < COUNTED && !planned.twin)
        .filter(|planned| definitions.iter().any(|d| d.id == planned.experiment && d.counters))
        .flat_map(|planned| {
            choice.counters.iter().map(|group| Planned {
                sample_id: format!("{}/counters={group}", planned.sample_id),
                counter_group: Some(group.clone()),
                ..planned.clone()
            })
        })
        .collect();
    // After the timing samples, which they must not disturb.
    counted.shuffle(&mut random);
    plan.extend(counted);
    for (index, planned) in plan.iter_mut().enumerate() {
        planned.order_index = index as u64;
    }
    Ok(plan)
}

/// Expected time of all samples.
pub fn estimate(plan: &[Planned]) -> Duration {
    plan.iter().map(Planned::estimate).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn choice(seed: u64) -> Choice {
        Choice {
            profile: "quick".into(),
            filter: None,
            modes: None,
            blocks: None,
            measure_ms: None,
            seed,
            counters: Vec::new(),
        }
    }

    fn quick(seed: u64) -> Vec<Planned> {
        make(&crate::definition::all(), &choice(seed), &Limits::none()).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_does_not() {
        assert_eq!(quick(7), quick(7));
        assert_ne!(quick(7), quick(8));
    }

    #[test]
    fn every_block_holds_each_subject_once_and_the_twin() {
        let plan = quick(1);
        let ids: BTreeSet<_> = plan.iter().map(|planned| &planned.sample_id).collect();
        assert_eq!(ids.len(), plan.len());
        let block: Vec<_> = plan.iter().filter(|p| p.cell_id == "E01/depth=1" && p.block == 0).collect();
        assert_eq!(block.len(), 5);
        assert_eq!(block.iter().filter(|planned| planned.twin).count(), 1);
        let first = block[0].order_index;
        assert!(block.iter().all(|planned| planned.order_index < first + 5), "a block is contiguous");
    }

    #[test]
    fn the_counter_pass_comes_last_and_leaves_the_timing_samples_alone() {
        let counters = vec!["caches".to_owned(), "software".to_owned()];
        let plan = make(&crate::definition::all(), &Choice { counters, ..choice(7) }, &Limits::none()).unwrap();
        let (timed, counted) = plan.split_at(quick(7).len());
        assert_eq!(timed, quick(7));
        assert!(!counted.is_empty() && counted.iter().all(|planned| planned.counter_group.is_some() && !planned.twin));
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error() {
        let choice = Choice { filter: Some(Regex::new("E99").unwrap()), ..choice(1) };
        assert!(make(&crate::definition::all(), &choice, &Limits::none()).is_err());
    }

    #[test]
    fn quick_stays_quick() {
        assert!(estimate(&quick(1)) < Duration::from_secs(225));
    }

    /// With a fifth repeated and some threads to start, it must end within 75 minutes.
    #[test]
    fn standard_stays_within_its_hour() {
        let choice = Choice { profile: "standard".into(), ..choice(1) };
        let plan = make(&crate::definition::all(), &choice, &Limits::none()).unwrap();
        assert!(estimate(&plan) < Duration::from_secs(55 * 60), "{:?}", estimate(&plan));
    }
}
