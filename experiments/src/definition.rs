//! An experiment as it is written down before it is run: `definitions/*.toml`.
//!
//! A definition asks one question, names the workload that answers it, lists the parameters of each
//! profile and states what is expected, with a sign and a size. The files are part of the binary, and
//! each run keeps a copy of those it used, so a report never depends on a later edit.

use crate::provenance;
use crate::subject::{BASELINE, Subject};
use perseq::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Named integers: what a workload is told.
pub type Parameters = BTreeMap<String, u64>;

/// One experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definition {
    /// Short name, for instance `E01`.
    pub id: String,
    /// A few words.
    pub title: String,
    /// What is asked.
    pub question: String,
    /// How it is asked, in two or three sentences.
    pub method: String,
    /// The workload in code that answers it.
    pub workload: String,
    /// The metric the forest plot shows.
    pub headline: String,
    /// Fairness rules to run under. None: the allocator's own capacity.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Parameters of every profile.
    pub parameters: Parameters,
    /// What each profile varies.
    pub profiles: BTreeMap<String, ProfileCells>,
    /// Whether the counter pass covers it.
    #[serde(default)]
    pub counters: bool,
    /// Whether the samples of a block are alive together and work in turns, so that all of them meet much the
    /// same host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub turns: bool,
    /// What is reported.
    pub metrics: Vec<Metric>,
    /// What is expected.
    pub predictions: Vec<Prediction>,
    /// Curves to draw.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// Figures of other kinds to draw.
    #[serde(default)]
    pub figures: Vec<Picture>,
    /// Words for the values of a parameter, as in `arm.1 = "one thread"`.
    #[serde(default)]
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// A figure that is not a curve over one parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Picture {
    /// Ratio of `percpu` to the baseline over two parameters, as colours.
    HeatMap {
        /// The metric.
        metric: String,
        /// Parameter across.
        across: String,
        /// Parameter upwards.
        up: String,
    },
    /// How many operations took longer, from the histograms called `histogram`.
    Tail {
        /// Its name in the rows.
        histogram: String,
        /// What was timed.
        label: String,
    },
    /// Series of bytes against time, stacked.
    Stack {
        /// Their names in the rows, from the bottom.
        series: Vec<String>,
    },
    /// Least bytes with which a mode reaches 95 % of its best.
    IsoPerformance {
        /// What performance is.
        metric: String,
        /// What memory is.
        bytes: String,
    },
    /// Bytes of each cache, sorted.
    Occupancy,
}

/// How the caches of two modes are made comparable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// Each cache holds the same number of bytes.
    A,
    /// All caches together hold the same number of bytes, and each may borrow what others do not use.
    B,
    /// All caches together hold the same number of bytes, and each keeps to an equal share.
    C,
}

impl Rule {
    /// The rule in words.
    pub const fn words(self) -> &'static str {
        match self {
            Rule::A => "equal bytes per cache",
            Rule::B => "equal bytes over all caches",
            Rule::C => "equal bytes in all, fixed shares",
        }
    }

    /// Whether the rule can hold for a subject. A cache that nobody can take bytes back from cannot borrow any.
    pub fn admits(self, subject: Subject) -> bool {
        match subject {
            Subject::Perseq(mode) => self != Rule::B || mode.lends() || !mode.has_caches(),
            Subject::System | Subject::Control => true,
        }
    }

    /// The per-thread mode that others are compared with under a rule: the plain one, or where that cannot lend, the one
    /// that can.
    pub fn baseline(rule: Option<Rule>) -> Subject {
        if rule == Some(Rule::B) { Subject::Perseq(Mode::PerThreadDrain) } else { BASELINE }
    }
}

/// The cells and the length of an experiment in one profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProfileCells {
    /// Measured time of one sample.
    pub measure_ms: u64,
    /// Randomised blocks per cell.
    pub blocks: u64,
    /// Subjects of each block, without the twin: those that the question is about.
    pub modes: Vec<Subject>,
    /// Further subjects, which run in the first `beside_blocks` blocks only. What a cell is held against runs in all.
    #[serde(default)]
    pub beside: Vec<Subject>,
    /// How many blocks these are.
    #[serde(default)]
    pub beside_blocks: u64,
    /// One cell for each combination of these values.
    #[serde(default)]
    pub vary: BTreeMap<String, Vec<u64>>,
    /// Further cells beside the product of `vary`.
    #[serde(default)]
    pub also: Vec<Parameters>,
    /// Cells in which the baseline also runs slowed down by known amounts of work.
    #[serde(default)]
    pub planted: Vec<Planted>,
    /// Whether the parameter `threads` goes from 1 to the number of allowed CPUs.
    #[serde(default)]
    pub scale: Option<Scale>,
}

/// Slower samples of the baseline, by which a run shows what it can find.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planted {
    /// The parameters of the cells they are planted in.
    pub at: Parameters,
    /// By how many per cent.
    pub percent: Vec<u64>,
}

/// Numbers of threads that depend on the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// One, and one for each allowed CPU.
    Ends,
    /// The powers of two below the allowed CPUs, and one for each.
    Powers,
}

impl Scale {
    fn threads(self, cpus: u64) -> Vec<u64> {
        let mut threads = match self {
            Scale::Ends => vec![1, cpus],
            Scale::Powers => {
                (0..64).map(|power| 1 << power).take_while(|threads| *threads < cpus).chain([cpus]).collect()
            }
        };
        threads.dedup();
        threads
    }
}

/// A quantity each sample reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    /// Its key in `metrics` of a row.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// What it is, in one sentence.
    pub meaning: String,
}

/// Which direction is good, and the words that say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Time per operation: less is faster.
    LessTime,
    /// Operations per time: more is faster.
    MoreRate,
    /// Bytes or events: less is less.
    Less,
    /// Neither direction is better in itself.
    Neither,
}

/// What is expected of one ratio to the baseline, or of one value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// The expectation in words.
    pub text: String,
    /// The metric it is about.
    pub metric: String,
    /// The subject whose ratio to the baseline it bounds.
    pub mode: Subject,
    /// What is bounded.
    #[serde(default)]
    pub of: Quantity,
    /// The rule of the cells it is about. None: any.
    pub rule: Option<Rule>,
    /// The parameters of the cells it is about.
    #[serde(default)]
    pub at: Parameters,
    /// Least value expected.
    pub at_least: f64,
    /// Greatest value expected. None: no bound.
    pub at_most: Option<f64>,
}

impl Prediction {
    /// Whether it would hold if the mode were the baseline. None: it is about a value, which has no such case.
    pub fn holds_without_effect(&self) -> Option<bool> {
        (self.of == Quantity::Ratio).then(|| self.at_least <= 1.0 && self.at_most.is_none_or(|most| 1.0 <= most))
    }
}

/// What a prediction bounds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// The ratio to the baseline.
    #[default]
    Ratio,
    /// The value itself: its mean and t interval over blocks.
    Value,
}

/// A curve: one metric against one parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// The metric on the vertical axis.
    pub metric: String,
    /// The parameter on the horizontal axis.
    pub parameter: String,
    /// Label of the horizontal axis.
    pub label: String,
    /// Whether the vertical axis is logarithmic.
    pub log: bool,
}

/// Files of `definitions/`, in order of their names.
macro_rules! files {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../definitions/", $name)))),*] };
}

const FILES: [(&str, &str); 16] = files![
    "e01-fast-path.toml"
    "e02-scaling.toml"
    "e03-oversubscription.toml"
    "e04-stranded-memory.toml"
    "e05-remote-frees.toml"
    "e06-thread-churn.toml"
    "e07-forced-migration.toml"
    "e08-latency-tail.toml"
    "e09-signals.toml"
    "e10-false-sharing.toml"
    "e11-memory-over-time.toml"
    "e12-capacity.toml"
    "e13-unfavourable.toml"
    "e14-application-locality.toml"
    "e15-trace-replay.toml"
    "e16-life-cycle.toml"
];

/// Where each prediction of each experiment comes from, as far as this binary knows its history.
pub fn provenance() -> BTreeMap<String, Vec<Vec<provenance::Version>>> {
    let of = |(name, text): &(&str, &str)| {
        (parse(name, text).map_or_else(|error| panic!("{error}"), |d| d.id), provenance::of(name, text))
    };
    FILES.iter().map(of).collect()
}

/// The predictions that each experiment had once and has no longer; not of those that withdrew none.
pub fn withdrawn() -> BTreeMap<String, Vec<provenance::Withdrawn>> {
    let of = |(name, text): &(&str, &str)| {
        let id = parse(name, text).map_or_else(|error| panic!("{error}"), |definition| definition.id);
        Some((id, provenance::withdrawn(name, text))).filter(|(_, withdrawn)| !withdrawn.is_empty())
    };
    FILES.iter().filter_map(of).collect()
}

/// Every experiment of this binary, in order of their ids.
pub fn all() -> Vec<Definition> {
    FILES.iter().map(|(name, text)| parse(name, text).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Reads one definition; `name` is used in the error.
pub fn parse(name: &str, text: &str) -> Result<Definition, String> {
    let error = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let document = toml::Deserializer::parse(text).map_err(|problem| error(&problem))?;
    // Unknown keys are mistakes here. In the manifest of another version they are not, and are passed over.
    let mut unknown = Vec::new();
    let definition: Definition = serde_ignored::deserialize(document, |path| unknown.push(path.to_string()))
        .map_err(|problem| error(&problem))?;
    if !unknown.is_empty() {
        return Err(error(&format!("unknown keys {}", unknown.join(", "))));
    }
    let metric = |wanted: &str| definition.metrics.iter().any(|metric| metric.name == wanted);
    let used = definition.predictions.iter().map(|prediction| &prediction.metric);
    let drawn = definition.figures.iter().flat_map(|picture| match picture {
        Picture::HeatMap { metric, .. } => vec![metric],
        Picture::IsoPerformance { metric, bytes } => vec![metric, bytes],
        Picture::Tail { .. } | Picture::Stack { .. } | Picture::Occupancy => vec![],
    });
    let curves = definition.curves.iter().map(|curve| &curve.metric);
    for wanted in used.chain([&definition.headline]).chain(curves).chain(drawn) {
        if !metric(wanted) {
            return Err(format!("{name}: no metric `{wanted}` is defined"));
        }
    }
    Ok(definition)
}

impl Definition {
    /// The metric called `name`.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// A parameter and its value in words, where the definition has some.
    pub fn label(&self, name: &str, value: u64) -> String {
        match self.labels.get(name).and_then(|labels| labels.get(&value.to_string())) {
            Some(words) => words.clone(),
            None => format!("{} = {value}", if name == "threads_per_cpu" { "r" } else { name }),
        }
    }

    /// Every combination of rule and varied parameters in `profile`, in a fixed order, for so many allowed CPUs.
    pub fn cells(&self, profile: &ProfileCells, cpus: u64) -> Vec<Cell> {
        let mut combinations = vec![Parameters::new()];
        let mut vary = profile.vary.clone();
        vary.extend(profile.scale.map(|scale| ("threads".to_owned(), scale.threads(cpus))));
        for (name, values) in &vary {
            combinations = values
                .iter()
                .flat_map(|value| {
                    combinations.iter().map(move |before| {
                        let mut with = before.clone();
                        with.insert(name.clone(), *value);
                        with
                    })
                })
                .collect();
        }
        combinations.extend(profile.also.iter().cloned());
        let rules: Vec<_> =
            if self.rules.is_empty() { vec![None] } else { self.rules.iter().copied().map(Some).collect() };
        rules
            .iter()
            .flat_map(|rule| combinations.iter().map(|varied| Cell::new(self, *rule, varied, profile)))
            .collect()
    }
}

/// One combination of rule and parameters.
#[derive(Clone, Debug)]
pub struct Cell {
    /// `E03/rule=A/threads_per_cpu=4`.
    pub id: String,
    /// The fairness rule.
    pub rule: Option<Rule>,
    /// All parameters the workload gets.
    pub parameters: Parameters,
    /// By how many per cent the baseline is slowed down in further samples.
    pub planted: Vec<u64>,
}

impl Cell {
    fn new(definition: &Definition, rule: Option<Rule>, varied: &Parameters, profile: &ProfileCells) -> Cell {
        let mut id = definition.id.clone();
        if let Some(rule) = rule {
            id += &format!("/rule={rule:?}");
        }
        for (name, value) in varied {
            id += &format!("/{name}={value}");
        }
        let mut parameters = definition.parameters.clone();
        parameters.extend(varied.clone());
        parameters.insert("measure_ms".into(), profile.measure_ms);
        let here = |planted: &&Planted| planted.at.iter().all(|(name, value)| parameters.get(name) == Some(value));
        let planted = profile.planted.iter().filter(here).flat_map(|planted| planted.percent.clone()).collect();
        Cell { id, rule, parameters, planted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_parses_and_names_a_workload_that_exists() {
        for definition in all() {
            assert!(crate::workload::exists(&definition.workload), "{}", definition.workload);
            let turns = crate::workload::turns(&definition.workload, std::time::Duration::ZERO);
            assert!(turns.is_some() || !definition.turns, "{}", definition.workload);
            assert!(definition.profiles.contains_key("quick"), "{}", definition.id);
            assert!(!definition.predictions.is_empty(), "{}", definition.id);
        }
    }

    #[test]
    fn cells_are_the_product_of_rules_and_values() {
        let all = all();
        let e03 = all.iter().find(|definition| definition.id == "E03").unwrap();
        let ids: Vec<_> = e03.cells(&e03.profiles["quick"], 2).into_iter().map(|cell| cell.id).collect();
        assert_eq!(ids.len(), 6);
        assert_eq!(ids[0], "E03/rule=A/threads_per_cpu=4");
    }

    #[test]
    fn threads_scale_to_the_host() {
        assert_eq!(Scale::Powers.threads(12), [1, 2, 4, 8, 12]);
        assert_eq!(Scale::Powers.threads(8), [1, 2, 4, 8]);
        assert_eq!(Scale::Ends.threads(1), [1]);
    }

    #[test]
    fn a_prediction_about_an_unknown_metric_is_refused() {
        let text = include_str!("../definitions/e01-fast-path.toml").replace("headline = \"", "headline = \"no_");
        assert!(parse("x.toml", &text).unwrap_err().contains("no metric"));
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions");
        let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        assert_eq!(found, FILES.map(|(name, _)| name));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = include_str!("../definitions/e01-fast-path.toml").replace("measure_ms", "measure_sm");
        assert!(parse("x.toml", &text).is_err());
        let text = include_str!("../definitions/e01-fast-path.toml").replace("rules", "ruels") + "colour = 1\n";
        assert!(parse("x.toml", &text).unwrap_err().contains("colour"));
    }
}
