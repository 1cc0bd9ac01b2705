//! One metric in one cell: each subject against the baseline, the same mode against itself, and what was planted.

use crate::definition::{Better, Metric};
use crate::experiment::{Row, baseline, pairs, planted_value, series, value};
use crate::subject::{Subject, TWINNED};
use perseq_statistics::{self, Doubt, Estimate, Heaps, Paired, Side, found, side, two_heaps};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The results of one metric in one cell.
pub struct MetricResult {
    /// The metric.
    pub metric: Metric,
    /// What the others are held against.
    pub baseline: Subject,
    /// Values of each subject, block by block, each with the copy of the loop that ran; the twin apart.
    pub values: Vec<(Subject, Vec<(u64, f64)>)>,
    /// Why a subject has no values, where a worker said so.
    pub unavailable: BTreeMap<&'static str, String>,
    /// Each subject against the baseline.
    pub comparisons: Vec<Comparison>,
    /// The twinned subject against itself.
    pub twin: Option<Estimate>,
    /// The smallest difference that the rule finds in noise like that of the twin, as a share. None: no twin, or the
    /// metric is not of those that are tested together.
    pub resolution: Option<f64>,
    /// The baseline with known work in it, against the baseline.
    pub planted: Vec<Planted>,
    /// What each subject has beyond the control arm, block by block: mean difference and its interval.
    pub excess: Vec<(Subject, Estimate)>,
    /// Samples of each subject that did not end in time: a value of them would be worse than any seen.
    pub late: BTreeMap<&'static str, usize>,
    twins: Option<Paired>,
    seed: u64,
}

/// One subject against the baseline.
pub struct Comparison {
    /// The subject.
    pub subject: Subject,
    /// Pairs.
    pub n: usize,
    /// The ratio and its bounds, if there is one.
    pub ratio: Result<Ratio, String>,
    /// Whether it stands when all of its family are counted. None: not one of those that are tested.
    pub holm: Option<bool>,
}

/// Comparisons of one experiment that are tested together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Those of the mode that the experiment's question is about.
    Asked,
    /// Those of the other modes and allocators, which stand beside them.
    Beside,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Asked, Family::Beside];

    /// Whether the comparisons of a subject belong to it.
    pub fn has(self, subject: Subject) -> bool {
        (self == Family::Asked) == (subject == TWINNED)
    }
}

/// A ratio to the baseline.
#[derive(Clone)]
pub struct Ratio {
    /// Geometric mean with the interval of two levels.
    pub mean: Estimate,
    /// Median and the interval of its bootstrap.
    pub median: Estimate,
    /// The smallest difference that the whole rule finds here four times in five, as a share: in the noise of the twin or
    /// of these pairs, whichever hides more. None: not one of those that are tested together.
    pub resolution: Option<f64>,
    /// What may be said.
    pub side: Side,
    paired: Paired,
    /// p value of "the ratio is 1", for Holm's procedure only.
    pub p: f64,
}

/// The baseline with known work in it.
pub struct Planted {
    /// Percent of time added.
    pub percent: u64,
    /// Pairs.
    pub n: usize,
    /// Its ratio to the baseline, if there is one.
    pub ratio: Result<Ratio, String>,
    /// Whether the rule says that it is slower.
    pub found: bool,
}

impl MetricResult {
    /// The result of `metric` in the rows of a cell.
    pub(super) fn new(cell: &str, metric: &Metric, rows: &[&Row]) -> MetricResult {
        let own = || rows.iter().copied();
        let plain = |subject, twin| series(own(), subject, twin, |row| value(row, &metric.name));
        let twins = Paired::in_layouts(&pairs(&plain(TWINNED, false), &plain(TWINNED, true)));
        let twin = twins.as_ref().and_then(Paired::t);
        let baseline = baseline(rows);
        let base = plain(baseline, false);
        let present: BTreeSet<&str> = rows.iter().map(|row| row.planned.task.mode_requested.name()).collect();
        let present = |subject: &Subject| present.contains(subject.name());
        let comparisons = Subject::all()
            .filter(|subject| *subject != baseline && present(subject))
            .map(|subject| {
                let pairs = pairs(&base, &plain(subject, false));
                Comparison { subject, n: pairs.len(), ratio: compare(&pairs, twin), holm: None }
            })
            .collect();
        let percents: BTreeSet<u64> = rows.iter().filter_map(|row| row.planned.task.planted_percent).collect();
        let timed = matches!(metric.better, Better::LessTime | Better::MoreRate);
        let planted = percents.into_iter().filter(|_| timed).map(|percent| {
            let slowed = series(own(), baseline, false, |row| planted_value(row, percent, &metric.name));
            let pairs = pairs(&base, &slowed);
            Planted { percent, n: pairs.len(), ratio: compare(&pairs, twin), found: false }
        });
        let control = plain(Subject::Control, false);
        let beyond = |subject: Subject| {
            let pairs = pairs(&control, &plain(subject, false));
            let differences: Vec<_> = pairs.iter().map(|(layout, control, value)| (*layout, value - control)).collect();
            Some((subject, perseq_statistics::mean(&differences)?))
        };
        let (mut unavailable, mut late) = (BTreeMap::new(), BTreeMap::new());
        for row in rows.iter().filter(|row| row.planned.task.plain()) {
            let name = row.planned.task.mode_requested.name();
            let reason = row.report.as_ref().and_then(|report| report.measurement.unavailable.get(&metric.name));
            if let Some(reason) = reason {
                unavailable.insert(name, reason.clone());
            }
            if row.status == crate::harness::row::Status::Timeout && !row.planned.twin {
                *late.entry(name).or_default() += 1;
            }
        }
        let mut result = MetricResult {
            metric: metric.clone(),
            baseline,
            values: Subject::all()
                .filter(present)
                .map(|subject| (subject, plain(subject, false).into_values().collect()))
                .collect(),
            unavailable,
            comparisons,
            twin,
            resolution: None,
            planted: planted.collect(),
            excess: Subject::all().filter(|subject| *subject != Subject::Control).filter_map(beyond).collect(),
            late,
            twins,
            seed: seed(&format!("{cell} {}", metric.name)),
        };
        result.bound();
        result
    }

    /// Samples of a subject and of its baseline that did not end in time, in words. None: all did.
    pub fn late_words(&self, subject: Subject) -> Option<String> {
        let of = |subject: Subject| Some(format!("{} of {subject} late", self.late.get(subject.name())?));
        let words: Vec<_> = [subject, self.baseline].into_iter().filter_map(of).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// Takes back what samples that did not end in time speak against: they are bounds, worse than any value of theirs. Of
    /// a subject that lacks some, only that it is worse may be said.
    fn bound(&mut self) {
        let late = |subject: Subject| self.late.contains_key(subject.name());
        let base = late(self.baseline);
        let stands = |comparison: &Comparison, side: Side| match (late(comparison.subject), base) {
            (false, false) => true,
            (own, base) => own != base && self.good(side) == Some(base),
        };
        let side = |comparison: &Comparison| {
            let side = comparison.ratio.as_ref().ok()?.side;
            (!matches!(side, Side::Unclear(_)) && !stands(comparison, side)).then_some(Side::Unclear(Doubt::Late))
        };
        let taken_back: Vec<_> = self.comparisons.iter().map(side).collect();
        for (comparison, side) in self.comparisons.iter_mut().zip(taken_back) {
            if let (Ok(ratio), Some(side)) = (&mut comparison.ratio, side) {
                ratio.side = side;
            }
        }
    }

    /// The comparison of one subject.
    pub fn comparison(&self, subject: Subject) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.subject == subject)
    }

    /// The ratio of one subject, if there is one.
    pub fn ratio(&self, subject: Subject) -> Option<&Ratio> {
        self.comparison(subject)?.ratio.as_ref().ok()
    }

    /// The values of one subject, each with its layout.
    pub fn in_layouts(&self, subject: Subject) -> &[(u64, f64)] {
        self.values.iter().find(|(name, _)| *name == subject).map_or(&[], |(_, values)| values)
    }

    /// The values of one subject.
    pub fn of(&self, subject: Subject) -> Vec<f64> {
        self.in_layouts(subject).iter().map(|(_, value)| *value).collect()
    }

    /// Two heaps that a subject's values lie in, instead of one.
    pub fn heaps(&self, subject: Subject) -> Option<Heaps> {
        two_heaps(&self.of(subject))
    }

    /// What a side means for this metric.
    pub fn word(&self, side: Side) -> &'static str {
        match (side, self.metric.better) {
            (Side::Below, Better::LessTime) | (Side::Above, Better::MoreRate) => "faster",
            (Side::Above, Better::LessTime) | (Side::Below, Better::MoreRate) => "slower",
            (Side::Below, Better::Less | Better::Neither) => "less",
            (Side::Above, Better::Less | Better::Neither) => "more",
            (Side::Equivalent, _) => "equivalent",
            (Side::Unclear(_), _) => "unclear",
        }
    }

    /// Whether a side is the good one. None: it is neither.
    pub fn good(&self, side: Side) -> Option<bool> {
        match (side, self.metric.better) {
            (Side::Below, Better::LessTime | Better::Less) | (Side::Above, Better::MoreRate) => Some(true),
            (Side::Above, Better::LessTime | Better::Less) | (Side::Below, Better::MoreRate) => Some(false),
            _ => None,
        }
    }

    /// The p values of its comparisons in a family.
    pub(super) fn p(&self, family: Family) -> impl Iterator<Item = f64> {
        let own = self.comparisons.iter().filter(move |comparison| family.has(comparison.subject));
        own.filter_map(|comparison| Some(comparison.ratio.as_ref().ok()?.p))
    }

    /// Says which comparisons of a family Holm's procedure kept, in the order of [`MetricResult::p`]; computes what the rule
    /// could have found where one more hypothesis needs a p value of `critical`; and looks for what was planted, as if it
    /// were one more answer to the question.
    pub(super) fn judge(&mut self, family: Family, mut kept: impl Iterator<Item = bool>, critical: f64) {
        // What is planted is held against the baseline, as what is asked about.
        let planted = family == Family::Asked && !self.planted.is_empty();
        if !planted && self.p(family).next().is_none() {
            return;
        }
        let (twins, seed) = (self.twins.as_ref(), self.seed);
        let of_twins = twins.and_then(|twins| perseq_statistics::resolution(twins, Some(twins), critical, seed));
        let resolve = |ratio: &mut Ratio| {
            let own = perseq_statistics::resolution(&ratio.paired, twins, critical, seed);
            ratio.resolution = own.into_iter().chain(of_twins).reduce(f64::max);
        };
        for comparison in self.comparisons.iter_mut().filter(|comparison| family.has(comparison.subject)) {
            if let Ok(ratio) = &mut comparison.ratio {
                let kept = kept.next().unwrap_or(false);
                ratio.side = found(ratio.side, kept);
                comparison.holm = Some(kept);
                resolve(ratio);
            }
        }
        if family != Family::Asked {
            return;
        }
        self.resolution = of_twins;
        let slower = if self.metric.better == Better::MoreRate { Side::Below } else { Side::Above };
        for planted in &mut self.planted {
            if let Ok(ratio) = &mut planted.ratio {
                ratio.side = found(ratio.side, ratio.p <= critical);
                planted.found = ratio.side == slower;
            }
        }
    }

    /// Says that the clock cannot tell these values apart, where one is no further than `step` from `reading`.
    pub(super) fn blur(&mut self, reading: f64, step: f64) {
        let short =
            |mut values: Vec<f64>| !values.is_empty() && perseq_statistics::median(&mut values) < reading + step;
        let base = short(self.of(self.baseline));
        let short: Vec<_> = self.comparisons.iter().map(|comparison| short(self.of(comparison.subject))).collect();
        for (comparison, short) in self.comparisons.iter_mut().zip(short) {
            if let Ok(ratio) = &mut comparison.ratio
                && (base || short)
            {
                ratio.side = Side::Unclear(Doubt::Clock);
            }
        }
    }
}

/// The ratio of such pairs, before Holm's procedure, or why there is none.
pub fn compare(pairs: &[(u64, f64, f64)], twin: Option<Estimate>) -> Result<Ratio, String> {
    if pairs.is_empty() {
        return Err("no pairs".into());
    }
    let zeros = pairs.iter().filter(|(_, base, value)| *base <= 0.0 || *value <= 0.0).count();
    let paired = Paired::in_layouts(pairs).ok_or(format!("no ratio: 0 in {zeros} of {} pairs", pairs.len()))?;
    let few = || "one pair has no interval".to_owned();
    let (mean, median) = (paired.t().ok_or_else(few)?, paired.median().ok_or_else(few)?);
    let p = paired.p().ok_or_else(few)?;
    Ok(Ratio { mean, median, resolution: None, p, side: side(mean, median, twin), paired })
}

/// A seed that depends on nothing but the name.
fn seed(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use crate::subject::BASELINE;
    use perseq_statistics::{holm, holm_critical};

    /// A row of `arm` with one value, in a cell of ten blocks over five copies of the loop.
    fn row(block: u64, arm: &str, planted: Option<u64>, value: f64) -> Row {
        let mode = arm.trim_end_matches("-twin");
        let mut planned = experiment::single("X", "fast-path", Subject::from_name(mode).unwrap(), Default::default());
        (planned.block, planned.twin) = (block, arm.ends_with("-twin"));
        (planned.task.layout, planned.task.planted_percent) = (block % 5, planted);
        experiment::row(&planned, "ns_per_pair", value)
    }

    fn judged(base: &str) -> MetricResult {
        let metric = serde_json::json!({"name": "ns_per_pair", "unit": "ns", "better": "less-time", "meaning": "time"});
        let mut rows = Vec::new();
        for block in 0..10 {
            // Noise of half a percent, another for each arm.
            let noise = |arm: u64| 1.0 + 0.005 * ((block * 7 + arm * 3) % 10) as f64 / 10.0;
            for (arm, name, planted, time) in [
                (0, base, None, 10.0),
                (1, "percpu", None, 10.0),
                (2, "percpu-twin", None, 10.0),
                (3, base, Some(1), 10.1),
                (4, base, Some(10), 11.0),
            ] {
                rows.push(row(block, name, planted, time * noise(arm)));
            }
        }
        let rows: Vec<_> = rows.iter().collect();
        let mut result = MetricResult::new("X", &serde_json::from_value(metric).unwrap(), &rows);
        for family in Family::ALL {
            let p: Vec<_> = result.p(family).collect();
            result.judge(family, holm(&p).into_iter(), holm_critical(&p));
        }
        result
    }

    #[test]
    fn what_is_planted_is_no_sample_of_its_mode_and_is_found_if_it_is_large_enough() {
        let result = judged("perthread");
        assert_eq!(result.of(BASELINE).len(), 10);
        assert_eq!(result.comparison(TWINNED).map(|found| found.n), Some(10));
        assert_eq!(result.ratio(TWINNED).map(|ratio| ratio.side), Some(Side::Equivalent));
        let found: Vec<_> = result.planted.iter().map(|planted| (planted.percent, planted.n, planted.found)).collect();
        assert_eq!(found, [(1, 10, false), (10, 10, true)]);
        let ratio = result.planted[1].ratio.as_ref().unwrap();
        assert!((ratio.mean.ratio - 1.1).abs() < 0.01, "{:?}", ratio.mean);
        assert!(
            result.resolution.is_some_and(|resolution| (0.01..0.1).contains(&resolution)),
            "{:?}",
            result.resolution
        );
    }

    /// The question of an experiment is about one mode. What is found of the others neither helps nor hinders its answer.
    #[test]
    fn each_family_is_judged_by_itself() {
        let metric = serde_json::json!({"name": "ns_per_pair", "unit": "ns", "better": "less-time", "meaning": "time"});
        let mut rows = Vec::new();
        for block in 0..10 {
            let noise = |arm: u64| 1.0 + 0.002 * ((block * 7 + arm * 3) % 10) as f64 / 10.0;
            for (arm, name, time) in
                [(0, "perthread", 10.0), (1, "percpu", 9.0), (2, "central", 8.0), (3, "system", 7.0)]
            {
                rows.push(row(block, name, None, time * noise(arm)));
            }
        }
        let rows: Vec<_> = rows.iter().collect();
        let mut result = MetricResult::new("X", &serde_json::from_value(metric).unwrap(), &rows);
        assert_eq!(Family::ALL.map(|family| result.p(family).count()), [1, 2]);
        let kept =
            |result: &MetricResult, mode: &str| result.comparison(Subject::from_name(mode).unwrap()).unwrap().holm;
        result.judge(Family::Beside, [false, true].into_iter(), 0.05);
        assert_eq!(["percpu", "central", "system"].map(|mode| kept(&result, mode)), [None, Some(false), Some(true)]);
        result.judge(Family::Asked, [true].into_iter(), 0.05);
        assert_eq!(
            ["percpu", "central", "system"].map(|mode| kept(&result, mode)),
            [Some(true), Some(false), Some(true)]
        );
        assert_eq!(result.ratio(TWINNED).unwrap().side, Side::Below);
    }

    /// Of a mode that lost a sample, that it is slower stands, that it is faster or as fast does not; and the other way round.
    #[test]
    fn a_sample_that_did_not_end_in_time_is_a_bound() {
        let metric = serde_json::json!({"name": "ns_per_pair", "unit": "ns", "better": "less-time", "meaning": "time"});
        let side = |late: &[&str], share: f64| {
            let mut rows = Vec::new();
            for block in 0..12 {
                let noise = |arm: u64| 1.0 + 0.002 * ((block * 7 + arm * 3) % 10) as f64 / 10.0;
                for (arm, name, time) in [(0, "perthread", 10.0), (1, "percpu", 10.0 * share)] {
                    let mut row = row(block, name, None, time * noise(arm));
                    if block < 2 && late.contains(&name) {
                        (row.status, row.report) = (crate::harness::row::Status::Timeout, None);
                    }
                    rows.push(row);
                }
            }
            let rows: Vec<_> = rows.iter().collect();
            let result = MetricResult::new("X", &serde_json::from_value(metric.clone()).unwrap(), &rows);
            let words = late.iter().rev().map(|name| format!("2 of {name} late")).collect::<Vec<_>>().join(", ");
            assert_eq!(result.late_words(TWINNED).unwrap_or_default(), words);
            result.ratio(TWINNED).unwrap().side
        };
        let late = Side::Unclear(Doubt::Late);
        assert_eq!([0.8, 1.0, 1.2].map(|share| side(&[], share)), [Side::Below, Side::Equivalent, Side::Above]);
        assert_eq!([0.8, 1.0, 1.2].map(|share| side(&["percpu"], share)), [late, late, Side::Above]);
        assert_eq!([0.8, 1.0, 1.2].map(|share| side(&["perthread"], share)), [Side::Below, late, late]);
        assert_eq!([0.8, 1.0, 1.2].map(|share| side(&["perthread", "percpu"], share)), [late; 3]);
    }

    /// Three copies of the loop with differences of their own: three witnesses of what is beyond the control arm.
    #[test]
    fn what_is_beyond_the_control_arm_has_one_witness_for_each_layout() {
        let metric = serde_json::json!({"name": "ns_per_pair", "unit": "ns", "better": "less-time", "meaning": "time"});
        let mut rows = Vec::new();
        for block in 0..9 {
            for (arm, time) in [("control", 5.0), ("percpu", 6.0 + (block % 3) as f64)] {
                let mut row = row(block, arm, None, time);
                row.planned.task.layout = block % 3;
                rows.push(row);
            }
        }
        let rows: Vec<_> = rows.iter().collect();
        let result = MetricResult::new("X", &serde_json::from_value(metric).unwrap(), &rows);
        let (subject, beyond) = result.excess[0];
        // Means 1, 2 and 3: a standard error of sqrt(1 / 3), and t(0.975, 2) = 4.302653.
        let half = 4.302_652_73 / 3f64.sqrt();
        assert_eq!(subject, TWINNED);
        assert!((beyond.ratio - 2.0).abs() < 1e-9 && (beyond.low - (2.0 - half)).abs() < 1e-6, "{beyond:?}");
    }

    #[test]
    fn a_cell_without_the_plain_mode_is_held_against_the_other_of_its_kind() {
        let result = judged("perthread-drain");
        assert_eq!(result.baseline.name(), "perthread-drain");
        assert!(result.ratio(TWINNED).is_some() && result.planted[1].found);
    }
}
