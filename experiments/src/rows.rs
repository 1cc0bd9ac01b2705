//! `perseq rows DIR`: the raw rows behind a number of the report, each with its line in `samples.jsonl`.
//!
//! The report prints this command beside its tables, so that nobody needs to believe them. The values are those of the
//! file, digit by digit; what is made of them is at the end, by the same pairing as in the report.

use crate::archive::Archive;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::number;
use crate::sample::{Row, Status};
use crate::statistics::{Paired, median};
use crate::subject::{BASELINE, Subject, TWINNED};
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  perseq rows DIR                                                    how every sample ended
  perseq rows DIR --metric pairs_per_s --filter ^E03/                the headline of E03, and its ratios
  perseq rows DIR --metric /allocator/restarts --modes percpu        any other value of a row, by its JSON pointer
  sed -n 17p DIR/samples.jsonl                                       the row that is called line 17";

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
    /// Only rows of these modes.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<Subject>>,
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
}

/// Prints them.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let archive = Archive::open(&arguments.dir)?;
    let rows = archive.rows()?;
    rows.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let wanted = |row: &Row| {
        arguments.filter.as_ref().is_none_or(|filter| filter.is_match(&row.planned.sample_id))
            && arguments.modes.as_ref().is_none_or(|modes| modes.contains(&row.planned.mode_requested))
    };
    let chosen: Vec<_> = rows.rows.iter().enumerate().filter(|(_, row)| wanted(row)).collect();
    if chosen.is_empty() {
        return Err(Failure::usage("rows: no row matches; `perseq rows DIR` lists all"));
    }
    let metric = arguments.metric.as_deref();
    let lines: Vec<_> = chosen
        .iter()
        .map(|(index, row)| Line {
            line: index + 1,
            sample_id: &row.planned.sample_id,
            attempt: row.attempt,
            status: row.status,
            reason: row.reason.as_deref(),
            value: metric.and_then(|metric| value(row, metric)),
        })
        .collect();
    if let Some(metric) = metric.filter(|_| lines.iter().all(|line| line.value.is_none())) {
        return Err(Failure::usage(format!("rows: no row has `{metric}`; expected a metric or a JSON pointer")));
    }
    if arguments.json {
        return output::print_json(&lines).map(|()| Exit::Done);
    }
    let rows: Vec<_> = chosen.iter().map(|(_, row)| *row).collect();
    output::print(&page(&lines, &rows, metric)).map(|()| Exit::Done)
}

/// As the file has it. Of a row that does not count: nothing.
fn value(row: &Row, metric: &str) -> Option<Value> {
    if !metric.starts_with('/') {
        return row.value(metric).map(Value::from);
    }
    let json = serde_json::to_value(row).ok().filter(|_| row.status == Status::Ok)?;
    json.pointer(metric).filter(|value| !value.is_null()).cloned()
}

fn page(lines: &[Line], rows: &[&Row], metric: Option<&str>) -> String {
    let mut text = format!("{:>6}  {:<56}  {:<8}  {}\n", "line", "sample", "status", metric.unwrap_or("reason"));
    for line in lines {
        let status = status(line.status);
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
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    lines.iter().for_each(|line| *ends.entry(status(line.status)).or_default() += 1);
    let ends: Vec<_> = ends.iter().map(|(status, count)| format!("{count} {status}")).collect();
    text += &format!("{} rows: {}\n", lines.len(), ends.join(", "));
    if let Some(metric) = metric {
        text += &summary(rows, metric);
    }
    text
}

/// What the report makes of them: for each cell and mode the median, the sum, and the ratio to the baseline.
fn summary(rows: &[&Row], metric: &str) -> String {
    let mut cells: Vec<&str> = Vec::new();
    for row in rows {
        if !cells.contains(&row.planned.cell_id.as_str()) {
            cells.push(&row.planned.cell_id);
        }
    }
    cells.sort_unstable();
    let mut text = String::new();
    for cell in cells {
        let series = |subject: Subject, twin: bool| -> BTreeMap<u64, f64> {
            let own = rows.iter().filter(|row| row.planned.cell_id == cell);
            own.filter(|row| row.planned.mode_requested == subject && row.planned.twin == twin)
                .filter_map(|row| Some((row.planned.block, value(row, metric)?.as_f64()?)))
                .collect()
        };
        let arms = Subject::all().map(|subject| (subject, false)).chain([(TWINNED, true)]);
        for (subject, twin) in arms {
            let own = series(subject, twin);
            if own.is_empty() {
                continue;
            }
            let name = format!("{subject}{}", if twin { "-twin" } else { "" });
            let values: Vec<_> = own.values().copied().collect();
            text += &format!(
                "{cell} {name}: n {}, median {}, sum {}",
                values.len(),
                median(&mut values.clone()),
                values.iter().sum::<f64>()
            );
            // The twin is held against the mode it repeats.
            let to = if twin { TWINNED } else { BASELINE };
            let base = series(to, false);
            let pairs: Vec<_> = own.iter().filter_map(|(block, value)| Some((*base.get(block)?, *value))).collect();
            if (twin || subject != to)
                && let Some(found) = Paired::new(&pairs).and_then(|paired| paired.t())
            {
                let [ratio, low, high] = [found.ratio, found.low, found.high].map(number::ratio);
                text += &format!(", to {to} {ratio} [{low} to {high}]");
            }
            text.push('\n');
        }
    }
    text
}

fn status(status: Status) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
