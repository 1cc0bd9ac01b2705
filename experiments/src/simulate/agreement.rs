//! How far simulated counts agree with counted ones: the ratio of the two for each count, cell and mode, and whether both
//! put the modes of a cell into the same order.
//!
//! Vendors count different things. So a count here is named by what an event says, and made of the model's counts to match:
//! what was fetched from the second level is what missed the first and not the second. Only the program's accesses are
//! compared, since counters of ordinary users leave the kernel out.

use super::study;
use crate::counters::{self, vendor::Raw};
use crate::experiment;
use crate::harness::task::Task;
use perseq_statistics::{Estimate, median, unpaired};
use std::collections::{BTreeMap, BTreeSet};

/// A count that both sides have.
pub struct Match {
    /// What it is of.
    pub words: &'static str,
    /// Counts of the model, in the class of programs, and whether each is added or taken away.
    simulated: &'static [(&'static str, bool)],
    /// Events of a processor that are it together, all of one group.
    pub events: &'static [&'static str],
}

const fn same(
    words: &'static str,
    simulated: &'static [(&'static str, bool)],
    events: &'static [&'static str],
) -> Match {
    Match { words, simulated, events }
}

const L1: &[(&str, bool)] = &[("l1_misses", true)];
const L2: &[(&str, bool)] = &[("l2_misses", true)];
const L2_HITS: &[(&str, bool)] = &[("l1_misses", true), ("l2_misses", false)];
const IN_GROUP: &[(&str, bool)] =
    &[("llc_hits", true), ("clean_transfers_in_group", true), ("modified_transfers_in_group", true)];
const FORWARDED: &[(&str, bool)] = &[("clean_transfers_in_group", true), ("modified_transfers_in_group", true)];
const OTHER_GROUP: &[(&str, bool)] = &[("clean_transfers_in_node", true), ("modified_transfers_in_node", true)];
const MODIFIED: &[(&str, bool)] = &[("modified_transfers_in_group", true)];
const WALKS: &[(&str, bool)] = &[("stlb_misses", true)];
const UPGRADES: &[(&str, bool)] = &[("upgrades", true)];

const L1_LOADS: &str = "L1 misses, of loads counted";
const L2_LOADS: &str = "L2 misses, of loads counted";
const FROM_L2: &str = "fetched from the L2";
const FROM_GROUP: &str = "fetched from the group";
const FROM_OTHERS: &str = "fetched from other groups";
const TLB: &str = "page-table walks";

/// What can be compared, for every processor of the table of events.
pub const MATCHES: &[Match] = &[
    same(L1_LOADS, L1, &["MEM_LOAD_RETIRED.L1_MISS"]),
    same(L2_LOADS, L2, &["MEM_LOAD_RETIRED.L2_MISS"]),
    same("modified lines, loads counted", MODIFIED, &["MEM_LOAD_L3_HIT_RETIRED.XSNP_HITM"]),
    same("forwarded lines, loads counted", FORWARDED, &["MEM_LOAD_L3_HIT_RETIRED.XSNP_FWD"]),
    same(TLB, WALKS, &["MEM_INST_RETIRED.STLB_MISS_LOADS", "MEM_INST_RETIRED.STLB_MISS_STORES"]),
    same(L1_LOADS, L1, &["MEM_LOAD_UOPS_RETIRED.L1_MISS"]),
    same(L2_LOADS, L2, &["MEM_LOAD_UOPS_RETIRED.L2_MISS"]),
    same(TLB, WALKS, &["MEM_UOPS_RETIRED.STLB_MISS_LOADS", "MEM_UOPS_RETIRED.STLB_MISS_STORES"]),
    same(FROM_L2, L2_HITS, &["ls_refills_from_sys.ls_mabresp_lcl_l2"]),
    same(FROM_GROUP, IN_GROUP, &["ls_refills_from_sys.ls_mabresp_lcl_cache"]),
    same(FROM_L2, L2_HITS, &["ls_dmnd_fills_from_sys.local_l2"]),
    same(FROM_GROUP, IN_GROUP, &["ls_dmnd_fills_from_sys.local_ccx"]),
    same(FROM_OTHERS, OTHER_GROUP, &["ls_dmnd_fills_from_sys.near_cache"]),
    same(TLB, WALKS, &["ls_l1_d_tlb_miss.all_l2_miss"]),
    same(TLB, WALKS, &["ls_l1_d_tlb_miss.l2_miss_all"]),
    same("upgrades", UPGRADES, &["l2_request_g1.change_to_x"]),
    same("L1 misses", L1, &["L1D_CACHE_REFILL"]),
    same("L2 misses", L2, &["L2D_CACHE_REFILL"]),
    same(TLB, WALKS, &["DTLB_WALK"]),
];

/// The counts that a processor with these events can be asked for.
pub fn possible(events: &[Raw]) -> Vec<&'static Match> {
    let has = |name: &&str| events.iter().any(|event| event.name == *name);
    MATCHES.iter().filter(|found| found.events.iter().all(has)).collect()
}

/// Values by start or block, each with the copy of the loop that ran.
type Values = Vec<(u64, f64)>;

/// What one side found: by cell, by what was counted, by mode.
pub type Side = BTreeMap<(String, &'static str, String), Values>;

/// What simulated rows say of these counts.
pub fn simulated(rows: &[study::Row], matches: &[&'static Match]) -> Side {
    let mut side = Side::new();
    for row in rows {
        for found in matches {
            let part = |(count, added): &(&str, bool)| {
                let value = study::value(row, &format!("user_{count}_per_pair"))?;
                Some(if *added { value } else { -value })
            };
            let parts: Option<Vec<f64>> = found.simulated.iter().map(part).collect();
            if let Some(parts) = parts {
                add(&mut side, &row.planned.cell_id, found, &row.planned.task, parts.iter().sum());
            }
        }
    }
    side
}

/// What rows of the counter pass say of them.
pub fn counted(rows: &[experiment::Row], matches: &[&'static Match]) -> Side {
    let mut side = Side::new();
    for row in rows.iter().filter(|row| row.planned.task.counter_group.is_some() && !row.planned.twin) {
        for found in matches {
            let event = |name: &&str| experiment::measured(row, &counters::metric(name));
            let parts: Option<Vec<f64>> = found.events.iter().map(event).collect();
            if let Some(parts) = parts {
                add(&mut side, &row.planned.cell_id, found, &row.planned.task, parts.iter().sum());
            }
        }
    }
    side
}

fn add(side: &mut Side, cell: &str, found: &Match, task: &impl Task, value: f64) {
    let key = (cell.to_owned(), found.words, task.subject().to_owned());
    side.entry(key).or_default().push((task.layout(), value));
}

/// Simulated beside counted, of one count and one mode.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// The medians of both, and the ratio of the means with its interval. None: a value is 0, or one side has only one.
    Both(f64, f64, Option<Estimate>),
    /// Why there is nothing to compare.
    Missing(&'static str),
}

/// One count in one cell.
#[derive(Debug)]
pub struct Line {
    /// The cell.
    pub cell: String,
    /// What was counted.
    pub words: &'static str,
    /// By mode.
    pub modes: Vec<(String, Found)>,
    /// Pairs of modes that both sides put into the same order, and all pairs of which both have values.
    pub order: (usize, usize),
}

/// Both sides beside each other: every count of every cell and mode that one of them has.
pub fn compare(simulated: &Side, counted: &Side) -> Vec<Line> {
    let keys: BTreeSet<_> = simulated.keys().chain(counted.keys()).collect();
    let mut lines: Vec<Line> = Vec::new();
    for key in keys {
        let (cell, words, mode) = key;
        if lines.last().is_none_or(|line| line.cell != *cell || line.words != *words) {
            lines.push(Line { cell: cell.clone(), words, modes: Vec::new(), order: (0, 0) });
        }
        let found = match (simulated.get(key), counted.get(key)) {
            (Some(model), Some(host)) => Found::Both(middle(model), middle(host), unpaired(host, model)),
            (None, _) => Found::Missing("not simulated"),
            (_, None) => Found::Missing("not counted"),
        };
        if let Some(line) = lines.last_mut() {
            line.modes.push((mode.clone(), found));
        }
    }
    lines.iter_mut().for_each(|line| line.order = order(&line.modes));
    lines
}

fn middle(values: &Values) -> f64 {
    median(&mut values.iter().map(|(_, value)| *value).collect::<Vec<_>>())
}

fn order(modes: &[(String, Found)]) -> (usize, usize) {
    let values: Vec<_> = modes
        .iter()
        .filter_map(|(_, found)| match found {
            Found::Both(model, host, _) => Some((*model, *host)),
            Found::Missing(_) => None,
        })
        .collect();
    let pairs = (0..values.len()).flat_map(|second| (0..second).map(move |first| (first, second)));
    let same = |(first, second): &(usize, usize)| {
        let (a, b) = (values[*first], values[*second]);
        a.0.total_cmp(&b.0) == a.1.total_cmp(&b.1)
    };
    (pairs.clone().filter(same).count(), pairs.count())
}

/// The table, and what it comes to.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::from(
        "SIMULATED BESIDE COUNTED: for each pair of an allocation and a free, the program's own. Medians of both, and the\n\
         ratio of simulated to counted with its 95 % interval. Where loads are counted, the model has stores as well.\n",
    );
    let mut last = "";
    for Line { cell, words, modes, order } in lines {
        if cell != last {
            text += &format!("\n{cell}\n");
            last = cell;
        }
        for (index, (mode, found)) in modes.iter().enumerate() {
            let first = if index == 0 { *words } else { "" };
            let found = match found {
                Found::Missing(why) => (*why).to_owned(),
                Found::Both(model, host, ratio) => {
                    let ratio = ratio.map_or("no ratio".into(), |ratio| {
                        format!("{:.3} [{:.3} to {:.3}]", ratio.ratio, ratio.low, ratio.high)
                    });
                    format!("{model:>12.4}{host:>12.4}  {ratio}")
                }
            };
            text += &format!("  {first:<32}{mode:<18}{found}\n");
        }
        text += &match order {
            (_, 0) => String::new(),
            (same, all) => format!("  {:<32}modes in the same order: {same} of {all} pairs\n", ""),
        };
    }
    let ratios = || {
        lines.iter().flat_map(|line| &line.modes).filter_map(|(_, found)| match found {
            Found::Both(.., ratio) => ratio.as_ref(),
            Found::Missing(_) => None,
        })
    };
    let all = lines.iter().map(|line| line.modes.len()).sum::<usize>();
    let (same, pairs) = lines.iter().fold((0, 0), |(same, all), line| (same + line.order.0, all + line.order.1));
    text + &format!(
        "\nOf {all} counts {} have a ratio, and the interval of {} holds 1. Of {pairs} pairs of modes both put {same} into the \
         same order.\n",
        ratios().count(),
        ratios().filter(|ratio| ratio.holds_one()).count(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: &str = "E01/depth=1";

    fn side(values: &[(&'static str, &str, &[f64])]) -> Side {
        let of = |values: &[f64]| (0..).zip(values.iter().copied()).collect();
        values.iter().map(|(words, mode, values)| ((CELL.to_owned(), *words, (*mode).to_owned()), of(values))).collect()
    }

    #[test]
    fn sides_that_agree_have_a_ratio_of_one_and_the_same_order() {
        let model = side(&[("L1", "percpu", &[1.0, 1.1, 0.9]), ("L1", "perthread", &[2.0, 2.1, 1.9])]);
        let host = side(&[("L1", "percpu", &[1.05, 0.95, 1.0]), ("L1", "perthread", &[2.05, 1.95, 2.0])]);
        let lines = compare(&model, &host);
        assert_eq!((lines.len(), lines[0].order), (1, (1, 1)));
        for (_, found) in &lines[0].modes {
            let Found::Both(_, _, Some(ratio)) = found else { panic!("{found:?}") };
            assert!(ratio.holds_one() && ratio.low > 0.7 && ratio.high < 1.4, "{ratio:?}");
        }
        let text = text(&lines);
        assert!(text.contains("modes in the same order: 1 of 1 pairs"), "{text}");
        assert!(text.ends_with("Of 2 counts 2 have a ratio, and the interval of 2 holds 1. Of 1 pairs of modes both put 1 into the same order.\n"), "{text}");
    }

    #[test]
    fn sides_that_disagree_say_by_how_much_and_in_what_order() {
        let model = side(&[("L1", "percpu", &[4.0, 4.1, 3.9]), ("L1", "perthread", &[2.0, 2.1, 1.9])]);
        let host = side(&[("L1", "percpu", &[1.0, 1.02, 0.98]), ("L1", "perthread", &[2.0, 2.1, 1.9])]);
        let lines = compare(&model, &host);
        assert_eq!(lines[0].order, (0, 1));
        let Found::Both(model, host, Some(ratio)) = &lines[0].modes[0].1 else { panic!("{lines:?}") };
        assert_eq!((*model, *host), (4.0, 1.0));
        // Simulated to counted, and not the other way round.
        assert!(ratio.low > 3.0 && ratio.high < 5.0, "{ratio:?}");
        let text = text(&lines);
        assert!(text.contains("0 of 1 pairs") && text.contains("the interval of 1 holds 1"), "{text}");
    }

    /// What is missing is not 0 and takes no part in the order; neither has what is 0 a ratio.
    #[test]
    fn what_one_side_lacks_is_said_and_not_compared() {
        let model =
            side(&[("L1", "percpu", &[1.0, 1.1]), ("L2", "percpu", &[0.0, 0.1]), ("L2", "perthread", &[0.2, 0.3])]);
        let host = side(&[("L2", "percpu", &[0.1, 0.1]), ("TLB", "percpu", &[0.5])]);
        let lines = compare(&model, &host);
        let found: Vec<_> =
            lines.iter().flat_map(|line| line.modes.iter().map(move |mode| (line.words, mode))).collect();
        let of = |words: &str, mode: &str| {
            found.iter().find(|(own, (name, _))| *own == words && name == mode).map(|(_, (_, found))| found.clone())
        };
        assert_eq!(of("L1", "percpu"), Some(Found::Missing("not counted")));
        assert_eq!(of("L2", "perthread"), Some(Found::Missing("not counted")));
        assert_eq!(of("TLB", "percpu"), Some(Found::Missing("not simulated")));
        assert!(matches!(of("L2", "percpu"), Some(Found::Both(_, _, None))), "{found:?}");
        assert!(lines.iter().all(|line| line.order == (0, 0)), "{lines:?}");
        let text = text(&lines);
        assert!(text.contains("not counted") && text.contains("not simulated") && text.contains("no ratio"), "{text}");
        assert!(text.contains("Of 4 counts 0 have a ratio"), "{text}");
    }

    /// From rows as runs have them: events that are one count together are added, and levels are taken apart.
    #[test]
    fn rows_become_counts_that_mean_the_same() {
        let matches: Vec<_> = MATCHES.iter().collect();
        let walks = ["MEM_INST_RETIRED.STLB_MISS_LOADS", "MEM_INST_RETIRED.STLB_MISS_STORES"];
        let row = |events: &[(&str, f64)], group: Option<&str>, twin: bool| {
            let mut sample = experiment::single("test", "fast-path", crate::subject::BASELINE, BTreeMap::new());
            (sample.task.counter_group, sample.twin) = (group.map(str::to_owned), twin);
            let mut row = experiment::row(&sample, "ns_per_pair", 1.0);
            let report = row.report.as_mut().expect("it counts");
            events.iter().for_each(|(name, value)| report.measurement.set(&counters::metric(name), *value));
            row
        };
        let both = [(walks[0], 0.25), (walks[1], 0.5)];
        let rows = [
            row(&both, Some("writes"), false),
            row(&both[..1], Some("writes"), false),
            row(&both, None, false),
            row(&both, Some("writes"), true),
        ];
        let counted = counted(&rows, &matches);
        let key = ("test/fast-path".to_owned(), TLB, crate::subject::BASELINE.name().to_owned());
        assert_eq!(counted.get(&key), Some(&vec![(0, 0.75)]), "{counted:?}");
        assert_eq!(counted.len(), 1, "{counted:?}");
    }

    /// A name that no processor has would never be compared; each processor has misses and walks.
    #[test]
    fn every_match_is_of_a_known_processor_and_every_processor_has_some() {
        let families: Vec<_> = counters::vendor::tables().collect();
        let names: BTreeSet<_> = families.iter().flat_map(|events| events.iter().map(|event| event.name)).collect();
        for name in MATCHES.iter().flat_map(|found| found.events) {
            assert!(names.contains(name), "{name}");
        }
        for events in families {
            let words: BTreeSet<_> = possible(events).into_iter().map(|found| found.words).collect();
            assert!(words.len() >= 3 && words.contains(TLB), "{words:?}");
            for found in possible(events) {
                let groups: BTreeSet<_> =
                    events.iter().filter(|event| found.events.contains(&event.name)).map(|event| event.group).collect();
                assert_eq!(groups.len(), 1, "{}: read by one sample", found.words);
            }
        }
    }
}
