//! `perseq compare A B`: what changed from one run to another, cell by cell, and what cannot be compared.
//!
//! Two runs on one host are compared value by value. Across hosts a value means nothing, so there the ratios to the
//! baseline are compared: whether the second host finds what the first found. Processes of two runs are not paired, so
//! the interval is Welch's. What differs in more than the binary or the host is refused, not adjusted.

use crate::definition::{Better, Metric};
use crate::experiment::{self, About, Experiments, Row, pairs, series};
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Reading};
use crate::harness::manifest::Manifest;
use crate::output;
use crate::report::number;
use crate::subject::{BASELINE, Subject};
use crate::written;
use perseq_statistics::{Estimate, Paired, difference, unpaired};
use regex::Regex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Values: the runs are of one host.
    Values,
    /// Ratios to the baseline: the hosts differ.
    Ratios,
}

/// One line of the comparison.
#[derive(Debug, Serialize)]
struct Change {
    cell: String,
    metric: String,
    mode: Subject,
    before: usize,
    after: usize,
    ratio: f64,
    low: f64,
    high: f64,
    verdict: &'static str,
    /// Percent by which it surely got worse.
    regression_percent: f64,
}

/// The whole comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    kind: Kind,
    hosts: [String; 2],
    commits: [String; 2],
    changes: Vec<Change>,
    /// What one run has and the other has not, or has otherwise.
    left_out: Vec<String>,
    notes: Vec<String>,
}

/// A run as it is compared.
struct Run {
    manifest: Manifest<About>,
    changed: Option<String>,
    rows: Vec<Row>,
}

impl Run {
    fn open(root: &Path, accept: bool) -> Result<Run, Failure> {
        let read = Archive::open(root)?.read::<Experiments>(Reading::accepting(accept))?;
        read.warning.iter().for_each(|warning| eprintln!("warning: {}: {warning}", root.display()));
        let run = Run { manifest: read.manifest, rows: read.rows, changed: read.changed };
        if !run.manifest.about.valid() {
            return Err(Failure::usage(format!("{}: a check of E00 failed; expected a valid run", root.display())));
        }
        Ok(run)
    }

    /// The rows of each cell.
    fn cells(&self) -> BTreeMap<&str, Vec<&Row>> {
        let mut cells: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            cells.entry(&row.planned.cell_id).or_default().push(row);
        }
        cells
    }
}

/// Options of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq compare runs/monday runs/tuesday                           the headlines
  perseq compare runs/monday runs/tuesday --fail-on-regression 5    for a script: exit code 1 beyond 5 %
  perseq compare THEIRS OURS --filter ^E04/ --all-metrics           across hosts: ratios only")]
pub struct Arguments {
    /// Directory of the first run.
    before: PathBuf,
    /// Directory of the second run.
    after: PathBuf,
    /// Only cells whose id matches.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Exit with 1 if anything compared surely got worse by more than so many percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_on_regression: Option<f64>,
    /// Compare every metric, not the headline only.
    #[arg(long)]
    all_metrics: bool,
    /// Compare runs whose files were changed as well, and say so.
    #[arg(long)]
    accept_changed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1000.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1000".into()),
    }
}

/// Compares and prints.
pub fn main(wanted: &Arguments) -> Result<Exit, Failure> {
    let accept = wanted.accept_changed;
    let (before, after) = (Run::open(&wanted.before, accept)?, Run::open(&wanted.after, accept)?);
    if before.manifest.tool.debug_assertions != after.manifest.tool.debug_assertions {
        return Err(Failure::usage("compare: one run is of a debug build and the other is not; expected two alike"));
    }
    let same = before.manifest.host_caption == after.manifest.host_caption;
    let several = before.manifest.across_hosts || after.manifest.across_hosts;
    let kind = if same && !several { Kind::Values } else { Kind::Ratios };
    if kind == Kind::Ratios && wanted.fail_on_regression.is_some() {
        return Err(Failure::usage(format!(
            "compare: --fail-on-regression needs two runs of one host; these are of {} and {}",
            before.manifest.host_caption, after.manifest.host_caption
        )));
    }
    let comparison = compare(&before, &after, kind, wanted);
    if comparison.changes.is_empty() {
        let why = comparison.left_out.first().map_or("no cell is in both runs", String::as_str);
        return Err(Failure::usage(format!("compare: nothing can be compared: {why}")));
    }
    if wanted.json {
        output::print_json(&comparison)?
    } else {
        output::print(&page(&comparison))?
    }
    let limit = wanted.fail_on_regression.unwrap_or(f64::INFINITY);
    let worse = comparison.changes.iter().filter(|change| change.regression_percent > limit).count();
    if worse > 0 {
        eprintln!("{worse} of {} compared got worse by more than {limit} %", comparison.changes.len());
        return Ok(Exit::Invalid);
    }
    Ok(Exit::Done)
}

fn compare(before: &Run, after: &Run, kind: Kind, wanted: &Arguments) -> Comparison {
    let (cells, others) = (before.cells(), after.cells());
    let (mut changes, mut left_out) = (Vec::new(), Vec::new());
    let matches = |id: &str| wanted.filter.as_ref().is_none_or(|filter| filter.is_match(id));
    for (id, rows) in cells.iter().filter(|(id, _)| matches(id)) {
        let Some(counterparts) = others.get(id) else {
            left_out.push(format!("{id}: only in the first run"));
            continue;
        };
        if let Some(why) = differs(rows[0], counterparts[0]) {
            left_out.push(format!("{id}: {why}"));
            continue;
        }
        let definition = before.manifest.about.definitions.iter().find(|d| d.id == rows[0].planned.task.experiment);
        let Some(definition) = definition else { continue };
        let metrics = definition.metrics.iter();
        for metric in metrics.filter(|metric| wanted.all_metrics || metric.name == definition.headline) {
            for subject in Subject::all() {
                if let Some(change) = change(id, metric, subject, kind, rows, counterparts) {
                    changes.push(change);
                }
            }
        }
    }
    left_out.extend(
        others
            .keys()
            .filter(|id| matches(id) && !cells.contains_key(*id))
            .map(|id| format!("{id}: only in the second run")),
    );
    let mut notes = Vec::new();
    for (which, run) in [("first", before), ("second", after)] {
        notes
            .extend(run.changed.iter().map(|changed| format!("{} In the {which} run: {changed}", written::banner(""))));
        if run.manifest.about.profile == "quick" {
            notes.push(format!("the {which} run is a smoke test"));
        }
        if run.manifest.finished_utc.is_none() {
            notes.push(format!("the {which} run is not complete"));
        }
    }
    let pair = |of: fn(&Manifest<About>) -> String| [of(&before.manifest), of(&after.manifest)];
    Comparison {
        kind,
        hosts: pair(|manifest| manifest.host_caption.clone()),
        commits: pair(|manifest| manifest.tool.git_commit.to_string()),
        changes,
        left_out,
        notes,
    }
}

/// Why two cells of one id are not the same question.
fn differs(before: &Row, after: &Row) -> Option<String> {
    if before.planned.task.workload != after.planned.task.workload {
        return Some(format!("workload {} and {}", before.planned.task.workload, after.planned.task.workload));
    }
    let turns =
        |row: &Row| row.planned.task.turns.map_or_else(|| "no turns".to_owned(), |turns| format!("{turns} turns"));
    if turns(before) != turns(after) {
        return Some(format!("{} and {}", turns(before), turns(after)));
    }
    let (a, b) = (&before.planned.task.params, &after.planned.task.params);
    let names = a.keys().chain(b.keys());
    let show = |value: Option<&u64>| value.map_or_else(|| "none".to_owned(), u64::to_string);
    names
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| format!("{name} is {} and {}", show(a.get(name)), show(b.get(name))))
        .next()
}

fn change(id: &str, metric: &Metric, subject: Subject, kind: Kind, before: &[&Row], after: &[&Row]) -> Option<Change> {
    let value = |row: &Row| experiment::value(row, &metric.name);
    let values = |rows: &[&Row], subject| series(rows.iter().copied(), subject, false, value);
    let (estimate, n) = match kind {
        Kind::Values => {
            let plain = |rows| values(rows, subject).into_values().collect::<Vec<_>>();
            let (a, b): (Vec<_>, Vec<_>) = (plain(before), plain(after));
            (unpaired(&a, &b)?, [a.len(), b.len()])
        }
        Kind::Ratios => {
            let baseline = experiment::baseline(before);
            if baseline == subject || baseline != experiment::baseline(after) {
                return None;
            }
            let paired = |rows| {
                let pairs = pairs(&values(rows, baseline), &values(rows, subject));
                Paired::in_layouts(&pairs).filter(|paired| paired.n() > 1)
            };
            let (a, b) = (paired(before)?, paired(after)?);
            (difference(&a, &b)?, [a.n(), b.n()])
        }
    };
    let Estimate { ratio, low, high } = estimate;
    let worse = match metric.better {
        Better::LessTime | Better::Less => low - 1.0,
        Better::MoreRate => 1.0 - high,
        Better::Neither => 0.0,
    };
    let verdict = match (low > 1.0, high < 1.0, metric.better, kind) {
        (false, false, ..) => "no clear change",
        (_, _, _, Kind::Ratios) => "the hosts disagree in size",
        (_, _, Better::Neither, _) => "changed",
        _ if worse > 0.0 => "worse",
        _ => "better",
    };
    Some(Change {
        cell: id.into(),
        metric: metric.name.clone(),
        mode: subject,
        before: n[0],
        after: n[1],
        ratio,
        low,
        high,
        verdict,
        regression_percent: worse.max(0.0) * 100.0,
    })
}

fn page(comparison: &Comparison) -> String {
    let mut text = match comparison.kind {
        Kind::Values => format!("second run over first, on {}\n", comparison.hosts[0]),
        Kind::Ratios => format!(
            "two hosts: ratios to {BASELINE}, or to the per-thread mode that a rule has in its place, those of the second run \
             over those of the first\n  first:  {}\n  second: {}\n",
            comparison.hosts[0], comparison.hosts[1]
        ),
    };
    text += &format!("  commits {} and {}\n\n", comparison.commits[0], comparison.commits[1]);
    for change in &comparison.changes {
        let label = format!("{} {}", change.cell, change.metric);
        text += &format!(
            "{label:<58} {:<14} {:>8} [{} to {}]  n {}, {}  {}\n",
            change.mode.name(),
            number::ratio(change.ratio),
            number::ratio(change.low),
            number::ratio(change.high),
            change.before,
            change.after,
            change.verdict
        );
    }
    let lines = |title: &str, lines: &[String]| match lines {
        [] => String::new(),
        lines => format!("\n{title}\n{}", lines.iter().map(|line| format!("  {line}\n")).collect::<String>()),
    };
    text += &lines("not compared", &comparison.left_out);
    text + &lines("note", &comparison.notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Parameters;
    use crate::experiment::{Question, Sample, row, single};
    use crate::subject::BASELINE;

    #[test]
    fn what_was_not_taken_alike_is_another_question() {
        let row = |turns, depth| {
            let sample = single("test", "fast-path", BASELINE, Parameters::from([("depth".into(), depth)]));
            row(&Sample { task: Question { turns, ..sample.task.clone() }, ..sample }, "ns_per_pair", 1.0)
        };
        assert_eq!(differs(&row(Some(20), 1), &row(Some(20), 1)), None);
        assert_eq!(differs(&row(None, 1), &row(Some(20), 1)).unwrap(), "no turns and 20 turns");
        assert_eq!(differs(&row(None, 1), &row(None, 64)).unwrap(), "depth is 1 and 64");
    }
}
