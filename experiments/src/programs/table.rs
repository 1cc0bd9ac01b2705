//! The table of a run: times and peaks of every program on every allocator, beside those on the C library.

use super::catalogue::{self, Program};
use super::study::{About, Report, Row};
use crate::harness::manifest::Manifest;
use crate::harness::row::Status;
use crate::report::document::{Block, Table};
use crate::report::number;
use crate::suite::SYSTEM;
use perseq_statistics::Paired;

/// The allocator, and what is to be said, if one needed more memory than is allowed.
pub fn exceeded(program: &Program, rows: &[Row]) -> Option<(String, String)> {
    let limit = program.peak_limit?;
    let own = || rows.iter().filter(|row| row.planned.cell_id == program.name);
    let peak = |row: &Row| row.counts().map(|report| report.rss_peak_bytes as f64);
    let base = own().find(|row| row.planned.task.allocator == SYSTEM && row.counts().is_some()).and_then(peak)?;
    let (row, most) = own().find_map(|row| peak(row).filter(|peak| *peak > base * limit).map(|peak| (row, peak)))?;
    let ratio = most / base;
    let line = format!("FAILED: peak {ratio:.2} times that on the C library, limit {limit}");
    Some((row.planned.task.allocator.clone(), line))
}

/// Where and of what the table was made.
pub fn heading(manifest: &Manifest<About>) -> String {
    let (tool, about) = (&manifest.tool, &manifest.about);
    let libc = manifest.host.pointer("/libc/value").and_then(|value| value.as_str()).unwrap_or("C library not known");
    let mut text = format!("# perseq programs, {} rounds, {}\n", about.rounds, manifest.started_utc);
    text += &format!("# {}; {libc}\n", manifest.host_caption);
    text += &format!("# perseq {}, commit {}, dirty: {}; {}\n", tool.version, tool.git_commit, tool.dirty, tool.rustc);
    about.allocators.iter().for_each(|arm| text += &format!("# {}\n", arm.line()));
    text
}

/// Rounds below which a ratio has no interval.
const ENOUGH: usize = 10;

/// A value of a run, what it is called, and how it is shown.
struct Value {
    name: &'static str,
    of: fn(&Report) -> Option<u64>,
    shown: fn(f64) -> String,
}

const VALUES: [Value; 4] = [
    Value { name: "time", of: |report| Some(report.wall_ns), shown: |ns| format!("{:.2} s", ns / 1e9) },
    Value { name: "peak", of: |report| Some(report.rss_peak_bytes), shown: number::bytes },
    Value { name: "average", of: |report| report.rss_mean_bytes, shown: number::bytes },
    Value { name: "faults", of: |report| report.minor_faults, shown: |count| format!("{count:.0}") },
];

/// What one program did on one allocator.
struct Line<'a> {
    program: &'a str,
    arm: &'a str,
    n: usize,
    /// Of each value its first measurement and its ratio to the C library's.
    values: Vec<[String; 2]>,
    result: String,
}

/// One line to a program and allocator; an error is a program that was skipped, or what must be known of one.
fn lines<'a>(rows: &[Row], about: &'a About) -> Vec<Result<Line<'a>, (&'a str, String)>> {
    let mut lines = Vec::new();
    for name in &about.programs {
        let of = |allocator: &str| -> Vec<&Row> {
            rows.iter().filter(|row| row.planned.cell_id == *name && row.planned.task.allocator == allocator).collect()
        };
        let program = catalogue::find(name);
        for arm in &about.allocators {
            let (own, base) = (of(&arm.name), of(SYSTEM));
            let Some(first) = own.first() else { continue };
            if first.status == Status::Skipped {
                if arm.name == SYSTEM {
                    let reason = first.reason.as_deref().unwrap_or("no reason");
                    lines.push(Err((name.as_str(), format!("skipped: {reason}"))));
                }
                continue;
            }
            let exceeded = program.and_then(|program| exceeded(program, rows));
            lines.push(Ok(line(name, &arm.name, &own, &base, exceeded)));
        }
        let note = program.and_then(|program| program.note).filter(|_| !of(SYSTEM).is_empty());
        lines.extend(note.map(|note| Err(("", note.to_owned()))));
    }
    lines
}

fn line<'a>(
    program: &'a str,
    arm: &'a str,
    own: &[&Row],
    base: &[&Row],
    exceeded: Option<(String, String)>,
) -> Line<'a> {
    let of = |row: &&Row, value: &Value| Some((row.planned.block, (value.of)(row.counts()?)? as f64));
    let pairs = |value: &Value| -> Vec<(f64, f64)> {
        let base: Vec<_> = base.iter().filter_map(|row| of(row, value)).collect();
        let mate =
            |(block, own): (u64, f64)| base.iter().find(|(other, _)| *other == block).map(|(_, base)| (*base, own));
        own.iter().filter_map(|row| of(row, value)).filter_map(mate).collect()
    };
    let values = VALUES.iter().map(|value| {
        let first =
            own.iter().find_map(|row| of(row, value)).map_or_else(|| "-".into(), |(_, first)| (value.shown)(first));
        [first, ratio(&pairs(value))]
    });
    let failed = own.iter().find(|row| row.status != Status::Ok).and_then(|row| row.reason.clone());
    let late = own.iter().filter(|row| row.status == Status::Timeout).count();
    let failed = failed.map(|reason| match late {
        0 => format!("FAILED: {reason}"),
        late => format!("FAILED: {late} of {} timed out, its time is at least that: {reason}", own.len()),
    });
    let over = exceeded.filter(|(name, _)| name == arm).map(|(_, line)| line);
    let result = failed.or(over).unwrap_or_else(|| "ok".into());
    Line { program, arm, n: pairs(&VALUES[0]).len(), values: values.collect(), result }
}

/// The geometric mean of the ratios, and its interval where there are enough.
fn ratio(pairs: &[(f64, f64)]) -> String {
    let positive: Vec<_> = pairs.iter().copied().filter(|(base, own)| *base > 0.0 && *own > 0.0).collect();
    if positive.is_empty() {
        return "-".into();
    }
    let mean = (positive.iter().map(|(base, own)| (own / base).ln()).sum::<f64>() / positive.len() as f64).exp();
    let interval = Paired::new(&positive).filter(|_| positive.len() >= ENOUGH).and_then(|paired| paired.t());
    format!("{mean:.2}") + &interval.map_or_else(String::new, |t| format!(" [{:.2}, {:.2}]", t.low, t.high))
}

/// The table as text.
pub fn table(rows: &[Row], about: &About) -> String {
    let mut text = format!("{:12} {:14}", "program", "on");
    VALUES.iter().for_each(|value| text += &format!(" {:>10} {:>18}", value.name, "ratio"));
    text += "  result\n";
    for line in lines(rows, about) {
        match line {
            Ok(line) => {
                text += &format!("{:12} {:14}", line.program, line.arm);
                line.values.iter().for_each(|[first, ratio]| text += &format!(" {first:>10} {ratio:>18}"));
                text += &format!("  {}\n", line.result);
            }
            Err((program, why)) => text += &format!("{program:12} {why}\n"),
        }
    }
    text
}

/// The table as part of a report.
pub fn blocks(rows: &[Row], about: &About) -> Vec<Block> {
    let (mut cells, mut said) = (Vec::new(), Vec::new());
    for line in lines(rows, about) {
        match line {
            Ok(line) => {
                let mut row = vec![line.program.to_owned(), line.arm.to_owned(), line.n.to_string()];
                row.extend(line.values.into_iter().flatten());
                row.push(line.result);
                cells.push(row);
            }
            Err((program, why)) => said.push(format!("{program} {why}").trim().to_owned()),
        }
    }
    let mut header = vec!["program", "on", "n"];
    VALUES.iter().for_each(|value| header.extend([value.name, "ratio"]));
    header.push("result");
    let table = Table {
        caption: format!("Whole programs: first values, and geometric means of ratios to {SYSTEM}"),
        header,
        text_columns: 2,
        rows: cells,
    };
    let mut blocks = vec![
        Block::Paragraph(format!(
            "Each program does a fixed amount of work and prints what it prints on the C library. Peak: the largest \
             resident set of any of its processes; average: that of all of them together, looked at every 20 ms; faults: \
             page faults that needed no disk. Intervals, 95 %, from {ENOUGH} rounds on."
        )),
        Block::Table(table),
    ];
    blocks.extend(Some(Block::List(said)).filter(|list| !matches!(list, Block::List(items) if items.is_empty())));
    blocks
}
