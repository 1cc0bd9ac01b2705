//! The table of a run: times and peaks of every program on every allocator, beside those on the C library.

use super::catalogue::{self, Program};
use super::study::{About, Report, Row};
use crate::harness::manifest::Manifest;
use crate::harness::row::Status;
use crate::report::number;
use crate::statistics::Paired;
use crate::suite::SYSTEM;

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

/// One line to a program and allocator.
pub fn table(rows: &[Row], about: &About) -> String {
    let mut text =
        format!("{:12} {:14} {:>9} {:>24} {:>10} {:>7}  result\n", "program", "on", "time", "ratio", "peak", "ratio");
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
                    text += &format!("{name:12} {:14} skipped: {reason}\n", "");
                }
                continue;
            }
            text += &line(name, &arm.name, &own, &base, program.and_then(|program| exceeded(program, rows)));
        }
        let note = program.and_then(|program| program.note).filter(|_| !of(SYSTEM).is_empty());
        note.iter().for_each(|note| text += &format!("{:12} {note}\n", ""));
    }
    text
}

fn line(program: &str, arm: &str, own: &[&Row], base: &[&Row], exceeded: Option<(String, String)>) -> String {
    let pairs = |value: fn(&Report) -> u64| -> Vec<(f64, f64)> {
        let value = |row: &&Row| Some((row.planned.block, value(row.report.as_ref()?) as f64));
        let base: Vec<_> = base.iter().filter_map(value).collect();
        let mate =
            |(block, own): (u64, f64)| base.iter().find(|(other, _)| *other == block).map(|(_, base)| (*base, own));
        own.iter().filter_map(value).filter_map(mate).collect()
    };
    let (time, peak) = (pairs(|report| report.wall_ns), pairs(|report| report.rss_peak_bytes));
    let ratio = |pairs: &[(f64, f64)]| {
        let logs: f64 = pairs.iter().map(|(base, own)| (own / base).ln()).sum();
        if pairs.is_empty() { "-".to_owned() } else { format!("{:.2}", (logs / pairs.len() as f64).exp()) }
    };
    let interval = Paired::new(&time).and_then(|paired| paired.t());
    let interval = interval.map_or_else(String::new, |t| format!(" [{:.2}, {:.2}]", t.low, t.high));
    let failed = own.iter().find(|row| row.status != Status::Ok).and_then(|row| row.reason.clone());
    let over = exceeded.filter(|(name, _)| name == arm).map(|(_, line)| line);
    let first = own.first().and_then(|row| row.report.as_ref());
    format!(
        "{program:12} {arm:14} {:>9} {:>24} {:>10} {:>7}  {}\n",
        first.map_or_else(|| "-".into(), |report| format!("{:.2} s", report.wall_ns as f64 / 1e9)),
        ratio(&time) + &interval,
        first.map_or_else(|| "-".into(), |report| number::bytes(report.rss_peak_bytes as f64)),
        ratio(&peak),
        failed.map(|reason| format!("FAILED: {reason}")).or(over).unwrap_or_else(|| "ok".into())
    )
}
