//! Which samples a run takes, and in which order. Made before the first sample and written down.
//!
//! The twin is part of each block; the counter pass comes last.

use crate::definition::{Cell, Definition, ProfileCells, Rule};
use crate::experiment::{Question, Sample};
use crate::failure::Failure;
use crate::harness::place::{self, Planned};
use crate::harness::task::Task;
use crate::host::limits::Limits;
use crate::subject::{Subject, TWINNED};
use crate::workload;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use std::time::Duration;

/// What the command line chose.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Name of the profile.
    pub profile: String,
    /// Cells whose id or title matches.
    pub filter: Option<Regex>,
    /// Subjects instead of the profile's, in every block.
    pub modes: Option<Vec<Subject>>,
    /// Blocks instead of the profile's.
    pub blocks: Option<u64>,
    /// Measured time instead of the profile's.
    pub measure_ms: Option<u64>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Links of the think loop in a millisecond. None: each sample finds out.
    pub links_per_ms: Option<u64>,
    /// Groups of counters to read in a pass of its own.
    pub counters: Vec<String>,
}

/// Blocks of the counter pass, at most: as many pairs as a claim needs.
const COUNTED: u64 = 10;

/// What runs in a block.
#[derive(Clone)]
struct Arm {
    subject: Subject,
    twin: bool,
    /// Percent by which known work slows it down.
    planted: Option<u64>,
    /// It runs in the blocks below this number.
    blocks: u64,
}

/// The arms of a cell whose subjects are `modes`, and `beside` in fewer blocks.
fn arms(cell: &Cell, modes: &[Subject], beside: (&[Subject], u64), blocks: u64) -> Vec<Arm> {
    let admitted = |subject: &&Subject| cell.rule.is_none_or(|rule| rule.admits(**subject));
    let baseline = Rule::baseline(cell.rule);
    let arm = |subject, twin, planted, blocks| Arm { subject, twin, planted, blocks };
    let everywhere = modes.iter().chain(beside.0.iter().filter(|subject| **subject == baseline));
    let mut arms: Vec<_> = everywhere.filter(admitted).map(|subject| arm(*subject, false, None, blocks)).collect();
    let has = |arms: &[Arm], subject: Subject| arms.iter().any(|arm| arm.subject == subject);
    let fewer: Vec<_> = beside.0.iter().filter(admitted).filter(|subject| !has(&arms, **subject)).collect();
    arms.extend(fewer.into_iter().map(|subject| arm(*subject, false, None, beside.1.min(blocks))));
    if has(&arms, TWINNED) {
        arms.push(arm(TWINNED, true, None, blocks));
    }
    if has(&arms, baseline) {
        arms.extend(cell.planted.iter().map(|percent| arm(baseline, false, Some(*percent), blocks)));
    }
    arms
}

/// Makes the plan.
pub fn make(definitions: &[Definition], choice: &Choice, limits: &Limits) -> Result<Vec<Sample>, Failure> {
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
            let blocks_of_cell = choice.blocks.unwrap_or(profile.blocks);
            let arms = match &choice.modes {
                Some(modes) => arms(&cell, modes, (&[], 0), blocks_of_cell),
                None => arms(&cell, &profile.modes, (&profile.beside, profile.beside_blocks), blocks_of_cell),
            };
            let layouts = deal(&definition.workload, blocks_of_cell, &mut random);
            let skip = limits.refuse(&cell.parameters, cell.rule);
            let turns = turns(definition, profile.measure_ms);
            for (block, layout) in (0..).zip(layouts) {
                let mut arms: Vec<_> = arms.iter().filter(|arm| block < arm.blocks).cloned().collect();
                arms.shuffle(&mut random);
                let (addresses, env_pad) = (random.random(), random.random_range(0..4096));
                let planned = |&Arm { subject, twin, planted, .. }: &Arm, random: &mut ChaCha8Rng| {
                    let task = Question {
                        experiment: definition.id.clone(),
                        workload: definition.workload.clone(),
                        params: cell.parameters.clone(),
                        fairness: cell.rule,
                        mode_requested: subject,
                        counter_group: None,
                        layout,
                        links_per_ms: choice.links_per_ms,
                        planted_percent: planted,
                        turns,
                        addresses: Some(addresses),
                    };
                    Planned {
                        sample_id: place::name(&cell.id, block, &task.arm(), twin),
                        cell_id: cell.id.clone(),
                        twin,
                        block,
                        order_index: 0,
                        invocation_seed: random.random(),
                        env_pad,
                        skip: skip.clone().or_else(|| limits.refuse_subject(subject)),
                        task,
                    }
                };
                blocks.push(arms.iter().map(|arm| planned(arm, &mut random)).collect::<Vec<_>>());
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
    let mut plan = place::shuffled(blocks, &mut random);
    // After the timing samples, which they must not disturb, and in blocks as these are.
    let counted = |group: &String| {
        let count = |planned: &Sample| Planned {
            sample_id: format!("{}/counters={group}", planned.sample_id),
            task: Question { counter_group: Some(group.clone()), turns: None, ..planned.task.clone() },
            ..planned.clone()
        };
        let wanted = |planned: &&Sample| {
            let counts = |definition: &Definition| definition.id == planned.task.experiment && definition.counters;
            planned.block < COUNTED && planned.task.planted_percent.is_none() && definitions.iter().any(counts)
        };
        let same = |a: &Sample, b: &Sample| a.cell_id == b.cell_id && a.block == b.block;
        let timed: Vec<_> = plan.iter().filter(wanted).cloned().collect();
        timed.chunk_by(same).map(|block| block.iter().map(count).collect()).collect::<Vec<Vec<_>>>()
    };
    let counted: Vec<_> = choice.counters.iter().flat_map(counted).collect();
    plan.extend(place::shuffled(counted, &mut random));
    Ok(place::numbered(plan))
}

/// The turns in which a sample of an experiment works for so long, if its samples take turns.
pub fn turns(definition: &Definition, measure_ms: u64) -> Option<u64> {
    definition.turns.then(|| workload::turns(&definition.workload, Duration::from_millis(measure_ms))).flatten()
}

/// The copy of the loop that each block of a cell runs, from shuffled decks of all copies: no copy comes again before every
/// other has come, so that few blocks have a copy each, and two copies are dealt equally often, or one of them once more.
pub fn deal(workload: &str, blocks: u64, random: &mut ChaCha8Rng) -> Vec<u64> {
    let copies = workload::copies(workload);
    let mut dealt = Vec::new();
    while (dealt.len() as u64) < blocks {
        let mut deck: Vec<_> = (0..copies).collect();
        deck.shuffle(random);
        dealt.extend(deck);
    }
    dealt.truncate(blocks as usize);
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    fn choice(seed: u64) -> Choice {
        Choice {
            profile: "quick".into(),
            filter: None,
            modes: None,
            blocks: None,
            measure_ms: None,
            seed,
            links_per_ms: None,
            counters: Vec::new(),
        }
    }

    fn quick(seed: u64) -> Vec<Sample> {
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

    /// One copy of the loop for all of a block, and each copy for as many blocks as any other, give or take one.
    #[test]
    fn a_cell_deals_its_blocks_the_copies_of_the_loop() {
        let plan =
            make(&crate::definition::all(), &Choice { profile: "standard".into(), ..choice(1) }, &Limits::none());
        let (mut of_block, mut of_cell) = (BTreeMap::new(), BTreeMap::new());
        for planned in plan.unwrap() {
            let (cell, copy) = (planned.cell_id, planned.task.layout);
            assert_eq!(*of_block.entry((cell.clone(), planned.block)).or_insert(copy), copy, "{cell}");
            let copies = workload::copies(&planned.task.workload) as usize;
            of_cell.entry(cell).or_insert(vec![BTreeSet::new(); copies])[copy as usize].insert(planned.block);
        }
        assert!(of_cell.values().any(|dealt| dealt.len() > 1));
        for (cell, dealt) in of_cell {
            let counts: Vec<_> = dealt.iter().map(BTreeSet::len).collect();
            let [least, most] = [counts.iter().min(), counts.iter().max()].map(Option::unwrap);
            assert!(most - least <= 1, "{cell}: {counts:?}");
        }
        // Not in the order of the copies.
        assert!(of_block.iter().any(|((_, block), copy)| block % 8 != copy % 8));
    }

    /// Modes that the question is not about run in the first blocks only, each in another copy of the loop; what a cell is
    /// held against runs in all of them, and so does what the command line names.
    #[test]
    fn modes_beside_the_question_run_in_fewer_blocks() {
        let standard = Choice { profile: "standard".into(), ..choice(3) };
        let named = |modes: &[&str]| {
            let modes = modes.iter().map(|name| Subject::from_name(name).unwrap()).collect();
            make(&crate::definition::all(), &Choice { modes: Some(modes), ..standard.clone() }, &Limits::none())
                .unwrap()
        };
        let plan = make(&crate::definition::all(), &standard, &Limits::none()).unwrap();
        let layouts = |plan: &[Sample], cell: &str, mode: &str| -> Vec<u64> {
            let own = plan.iter().filter(|planned| planned.cell_id == cell && planned.task.subject() == mode);
            own.filter(|planned| !planned.twin && planned.task.plain()).map(|planned| planned.task.layout).collect()
        };
        let of = |rule: &str, mode: &str| layouts(&plan, &format!("E03/rule={rule}/threads_per_cpu=32"), mode);
        let (few, all) = (of("A", "central"), of("A", "percpu"));
        assert!(few.len() >= 10 && few.len() < all.len(), "{} of {}", few.len(), all.len());
        assert_eq!(few.iter().collect::<BTreeSet<_>>().len(), few.len(), "{few:?}");
        assert_eq!([of("A", "perthread").len(), of("B", "perthread-drain").len()], [all.len(); 2]);
        assert_eq!(of("A", "perthread-drain").len(), few.len());
        let named = named(&["percpu", "central"]);
        let of = |mode: &str| layouts(&named, "E03/rule=A/threads_per_cpu=32", mode).len();
        assert_eq!([of("central"), of("percpu"), of("perthread")], [all.len(), all.len(), 0]);
    }

    /// All samples of a block lie at the same addresses and work in the same turns, and another block lies elsewhere.
    #[test]
    fn a_block_has_one_place_in_memory_and_takes_its_turns_together() {
        let plan = make(
            &crate::definition::all(),
            &Choice { counters: vec!["software".into()], ..choice(1) },
            &Limits::none(),
        );
        let (mut of_block, mut places) = (BTreeMap::new(), BTreeSet::new());
        for planned in plan.unwrap() {
            let place = (planned.task.addresses.unwrap(), planned.env_pad);
            let block = (planned.cell_id.clone(), planned.block);
            assert_eq!(*of_block.entry(block).or_insert(place), place, "{}", planned.sample_id);
            places.insert(place);
            let timed = planned.task.counter_group.is_none();
            let turns = timed && ["E01", "E02"].contains(&planned.task.experiment.as_str());
            assert_eq!(planned.task.turns, turns.then_some(100), "{}", planned.sample_id);
        }
        assert_eq!(places.len(), of_block.len());
    }

    /// Slower samples are of the baseline, in their own arms, and of few cells.
    #[test]
    fn planted_arms_stand_beside_the_baseline() {
        let plan =
            make(&crate::definition::all(), &Choice { profile: "standard".into(), ..choice(1) }, &Limits::none());
        let plan = plan.unwrap();
        let planted: Vec<_> = plan.iter().filter(|planned| planned.task.planted_percent.is_some()).collect();
        let cells: BTreeSet<_> = planted.iter().map(|planned| &planned.cell_id).collect();
        assert!((1..=4).contains(&cells.len()), "{cells:?}");
        let percents: BTreeSet<_> = planted.iter().filter_map(|planned| planned.task.planted_percent).collect();
        assert_eq!(percents, BTreeSet::from([1, 3, 5, 10]));
        for planned in planted {
            assert_eq!(planned.task.mode_requested, Rule::baseline(planned.task.fairness), "{}", planned.sample_id);
            assert!(workload::copies(&planned.task.workload) > 1, "{}: it plants nothing", planned.sample_id);
        }
    }

    /// No cell compares a cache that may borrow with one that may not.
    #[test]
    fn a_rule_holds_for_every_mode_of_its_cells() {
        let plan =
            make(&crate::definition::all(), &Choice { profile: "standard".into(), ..choice(1) }, &Limits::none());
        let mut baselines = BTreeSet::new();
        for planned in plan.unwrap() {
            let Some(rule) = planned.task.fairness else { continue };
            assert!(rule.admits(planned.task.mode_requested), "{}", planned.sample_id);
            if planned.task.mode_requested == Rule::baseline(Some(rule)) {
                baselines.insert(planned.cell_id.clone());
            }
            if rule == Rule::B {
                let lends = match planned.task.mode_requested {
                    Subject::Perseq(mode) => mode.lends() || !mode.has_caches(),
                    _ => true,
                };
                assert!(lends, "{}", planned.sample_id);
            }
        }
        assert!(
            baselines.iter().any(|cell| cell.contains("rule=B"))
                && baselines.iter().any(|cell| cell.contains("rule=C"))
        );
    }

    #[test]
    fn the_counter_pass_comes_last_and_leaves_the_timing_samples_alone() {
        let counters = vec!["caches".to_owned(), "software".to_owned()];
        let plan = make(&crate::definition::all(), &Choice { counters, ..choice(7) }, &Limits::none()).unwrap();
        let (timed, counted) = plan.split_at(quick(7).len());
        assert_eq!(timed, quick(7));
        assert!(!counted.is_empty() && counted.iter().all(|planned| planned.task.counter_group.is_some()));
        // Paired as the timing samples are: every block with its twin.
        let twins = counted.iter().filter(|planned| planned.twin).count();
        let blocks: BTreeSet<_> =
            counted.iter().map(|planned| (&planned.cell_id, planned.block, &planned.task.counter_group)).collect();
        assert_eq!(twins, blocks.len());
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error() {
        let choice = Choice { filter: Some(Regex::new("E99").unwrap()), ..choice(1) };
        assert!(make(&crate::definition::all(), &choice, &Limits::none()).is_err());
    }

    #[test]
    fn quick_stays_quick() {
        assert!(place::estimate(&quick(1)) < Duration::from_secs(225));
    }

    /// With a tenth repeated and some threads to start, it must end within 65 minutes; and its rows must fit beside the
    /// source.
    #[test]
    fn standard_stays_within_its_hour() {
        let choice = Choice { profile: "standard".into(), ..choice(1) };
        let plan = make(&crate::definition::all(), &choice, &Limits::none()).unwrap();
        assert!(place::estimate(&plan) < Duration::from_secs(57 * 60), "{:?}", place::estimate(&plan));
        assert!(plan.len() < 12_000, "{} samples", plan.len());
    }
}
