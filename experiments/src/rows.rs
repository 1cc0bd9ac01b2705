//! `perseq rows DIR`: the raw rows behind a number of the report, each with its line in `samples.jsonl`.
//!
//! The report prints this command beside its tables, so that nobody needs to believe them. The values are those of the
//! file, digit by digit; what is made of them is at the end, by the same pairing as in the report.

use crate::experiment::Experiments;
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Reading};
use crate::harness::row::{Row, Status};
use crate::harness::study::Study;
use crate::harness::task::Task;
use crate::output;
use crate::programs::Programs;
use crate::replay::Replay;
use crate::report::{number, parts};
use crate::simulate::Simulation;
use crate::subject::Subject;
use crate::suite::Suite;
use crate::written;
use perseq_statistics::{Paired, median};
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  perseq rows DIR                                                    how every sample ended
  perseq rows DIR --metric pairs_per_s --filter ^E03/                the headline of E03, and its ratios
  perseq rows DIR --metric /allocator/restarts --modes percpu        any other value of a row, by its JSON pointer
  sed -n 17p DIR/samples.jsonl                                       the row that is called line 17
  zcat DIR/samples*.jsonl.gz | sed -n 17p                            the same, of rows that are compressed";

/// Options of `rows`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Directory of the run.
    dir: PathBuf,
    /// The value to print: a metric, or a JSON pointer into the row, as in `/allocator/restarts`.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Only rows whose sample matches, for instance `^E03/rule=B/`.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Only rows of these modes or allocators.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<String>>,
    /// Read a run whose files were changed as well, and say so.
    #[arg(long)]
    accept_changed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A row, as far as it is asked for.
#[derive(Debug, Serialize)]
struct Line<'a> {
    line: usize,
    sample_id: &'a str,
    attempt: u32,
    status: Status,
    reason: Option<&'a str>,
    /// Null: the row has no such value, or does not count.
    value: Option<Value>,
    #[serde(skip)]
    cell: &'a str,
    #[serde(skip)]
    arm: String,
    #[serde(skip)]
    layout: u64,
    #[serde(skip)]
    twin: bool,
    #[serde(skip)]
    block: u64,
}

/// Prints them, whatever the kind of the run.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let archive = Archive::open(&arguments.dir)?;
    match archive.kind()?.as_str() {
        Suite::KIND => print::<Suite>(arguments, &archive),
        Programs::KIND => print::<Programs>(arguments, &archive),
        Replay::KIND => print::<Replay>(arguments, &archive),
        Simulation::KIND => print::<Simulation>(arguments, &archive),
        _ => print::<Experiments>(arguments, &archive),
    }
}

fn print<S: Study>(arguments: &Arguments, archive: &Archive) -> Result<Exit, Failure> {
    let run = archive.read::<S>(Reading::accepting(arguments.accept_changed))?;
    run.warning.iter().chain(&parts::notice(&run.manifest)).for_each(|warning| eprintln!("warning: {warning}"));
    let metric = arguments.metric.as_deref();
    let wanted = |row: &Row<S::Task, S::Report>| {
        let subject = row.planned.task.subject();
        arguments.filter.as_ref().is_none_or(|filter| filter.is_match(&row.planned.sample_id))
            && arguments.modes.as_ref().is_none_or(|modes| modes.iter().any(|mode| mode == subject))
    };
    let chosen = run.rows.iter().enumerate().filter(|(_, row)| wanted(row));
    let lines: Vec<_> = chosen
        .map(|(index, row)| Line {
            line: index + 1,
            sample_id: &row.planned.sample_id,
            attempt: row.attempt,
            status: row.status,
            reason: row.reason.as_deref(),
            value: metric.and_then(|metric| value(row, metric)),
            cell: &row.planned.cell_id,
            arm: row.planned.task.arm(),
            layout: row.planned.task.layout(),
            twin: row.planned.twin,
            block: row.planned.block,
        })
        .collect();
    if lines.is_empty() {
        return Err(Failure::usage("rows: no row matches; `perseq rows DIR` lists all"));
    }
    if let Some(metric) = metric.filter(|_| lines.iter().all(|line| line.value.is_none())) {
        return Err(Failure::usage(format!("rows: no row has `{metric}`; expected a metric or a JSON pointer")));
    }
    if arguments.json {
        return output::print_json(&lines).map(|()| Exit::Done);
    }
    let about = &run.manifest.about;
    let mark = run.changed.iter().map(|changed| written::banner(changed) + "\n\n").collect::<String>();
    let page = page(&lines, metric, S::baseline(about), S::twinned(about));
    output::print(&(mark + &page + &run.origin().line() + "\n")).map(|()| Exit::Done)
}

/// As the file has it. Of a row that does not count: nothing. A name is that of a metric, or of a field of the row.
fn value<T: Serialize, R: Serialize>(row: &Row<T, R>, metric: &str) -> Option<Value> {
    let json = serde_json::to_value(row).ok().filter(|_| row.status == Status::Ok)?;
    let found = if metric.starts_with('/') {
        json.pointer(metric)
    } else {
        // Samples of the counter pass are not timed.
        let timed = json.get("counter_group").is_none();
        let metrics = json.get("metrics").filter(|_| timed);
        metrics
            .and_then(|metrics| metrics.get(metric))
            .or_else(|| json.get(metric).filter(|_| metrics.is_none() && timed))
    };
    found.filter(|value| !value.is_null()).cloned()
}

fn page(lines: &[Line], metric: Option<&str>, baseline: &str, twinned: &str) -> String {
    let mut text = format!("{:>6}  {:<56}  {:<8}  {}\n", "line", "sample", "status", metric.unwrap_or("reason"));
    for line in lines {
        let status = line.status.word();
        let last = match (&line.value, line.reason, metric) {
            (Some(value), ..) => value.to_string(),
            (None, Some(reason), _) => reason.to_owned(),
            (None, None, Some(_)) => "not available".to_owned(),
            (None, None, None) => String::new(),
        };
        let shown = format!("{:>6}  {:<56}  {status:<8}  {last}", line.line, line.sample_id);
        text += shown.trim_end();
        text.push('\n');
    }
    text.push('\n');
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    lines.iter().for_each(|line| *ends.entry(line.status.word()).or_default() += 1);
    let ends: Vec<_> = ends.iter().map(|(status, count)| format!("{count} {status}")).collect();
    text += &format!("{} rows: {}\n", lines.len(), ends.join(", "));
    if metric.is_some() {
        text += &summary(lines, baseline, twinned);
    }
    text
}

/// What the report makes of them: for each cell and subject the median, the sum, and the ratio to the baseline.
fn summary(lines: &[Line], baseline: &str, twinned: &str) -> String {
    let cells: BTreeSet<&str> = lines.iter().map(|line| line.cell).collect();
    let mut subjects: Vec<(&str, bool)> = Vec::new();
    for line in lines {
        if !subjects.contains(&(line.arm.as_str(), line.twin)) {
            subjects.push((&line.arm, line.twin));
        }
    }
    let rank = |name: &str| Subject::from_name(name).map_or(usize::MAX, Subject::rank);
    subjects.sort_by_key(|(name, twin)| (*twin, rank(name)));
    let mut text = String::new();
    for cell in cells {
        let series = |subject: &str, twin: bool| -> BTreeMap<u64, (u64, f64)> {
            let own = lines.iter().filter(|line| line.cell == cell && line.arm == subject && line.twin == twin);
            own.filter_map(|line| Some((line.block, (line.layout, line.value.as_ref()?.as_f64()?)))).collect()
        };
        for (subject, twin) in &subjects {
            let own = series(subject, *twin);
            if own.is_empty() {
                continue;
            }
            let name = format!("{subject}{}", if *twin { "-twin" } else { "" });
            let mut values: Vec<_> = own.values().map(|(_, value)| *value).collect();
            let (n, sum) = (values.len(), values.iter().sum::<f64>());
            text += &format!("{cell} {name}: n {n}, median {}, sum {sum}", median(&mut values));
            // The twin is held against the subject it repeats.
            let to = if *twin { twinned } else { baseline };
            let base = series(to, false);
            let pair = |(block, (layout, value)): (&u64, &(u64, f64))| Some((*layout, base.get(block)?.1, *value));
            let pairs: Vec<_> = own.iter().filter_map(pair).collect();
            if (*twin || *subject != to)
                && let Some(found) = Paired::in_layouts(&pairs).and_then(|paired| paired.t())
            {
                let [ratio, low, high] = [found.ratio, found.low, found.high].map(number::ratio);
                text += &format!(", to {to} {ratio} [{low} to {high}]");
            }
            text.push('\n');
        }
    }
    text
}
