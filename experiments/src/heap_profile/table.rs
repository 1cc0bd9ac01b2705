//! A profile as text: the functions that allocate most, what is still in use by stack, and what became of it from one
//! profile to another.

use super::sites::{Counts, Estimate, Frame, Sites};
use crate::report::number;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Frames of a stack that are shown.
const FRAMES: usize = 12;

/// A function, or a stack.
#[derive(Default)]
struct Row {
    /// Of those that the function allocated itself.
    flat: Counts,
    /// And those that functions allocated which it called.
    cumulative: Counts,
}

/// The functions that have most in use, and then those that allocated most.
pub fn top(sites: &Sites, rows: usize) -> String {
    let mut functions: BTreeMap<&str, Row> = BTreeMap::new();
    for (stack, counts) in &sites.0 {
        if let Some(own) = stack.first() {
            functions.entry(&own.name).or_default().flat += *counts;
        }
        // One that calls itself is counted once.
        let all: BTreeSet<_> = stack.iter().map(|frame| &*frame.name).collect();
        all.into_iter().for_each(|name| functions.entry(name).or_default().cumulative += *counts);
    }
    let total = sites.total();
    let mut functions: Vec<_> = functions.into_iter().collect();
    let key = |row: &Row| {
        [row.flat.live_bytes, row.flat.bytes, row.cumulative.live_bytes, row.cumulative.bytes].map(|sum| sum.value)
    };
    functions.sort_by(|(_, one), (_, other)| key(other).partial_cmp(&key(one)).expect("sums are numbers"));
    let mut text = summary(&total);
    _ = writeln!(
        text,
        "\n{:>10} {:>9} {:>5} {:>10} {:>10} {:>5} {:>10}  function",
        "in use", "+-", "%", "with calls", "allocated", "%", "with calls"
    );
    for (name, Row { flat, cumulative }) in functions.iter().take(rows) {
        let cell = |sum: Estimate| number::bytes(sum.value);
        _ = writeln!(
            text,
            "{:>10} {:>9} {:>5} {:>10} {:>10} {:>5} {:>10}  {name}",
            cell(flat.live_bytes),
            number::bytes(flat.live_bytes.half_width()),
            percent(flat.live_bytes, total.live_bytes),
            cell(cumulative.live_bytes),
            cell(flat.bytes),
            percent(flat.bytes, total.bytes),
            cell(cumulative.bytes),
        );
    }
    rest(&mut text, functions.len().saturating_sub(rows), "function");
    text
}

/// What is in use, by stack.
pub fn leaks(sites: &Sites, rows: usize) -> String {
    let mut live: Vec<_> = sites.0.iter().filter(|(_, counts)| counts.live_objects > 0.0).collect();
    let bytes = |counts: &Counts| counts.live_bytes.value;
    live.sort_by(|(_, one), (_, other)| bytes(other).total_cmp(&bytes(one)));
    let mut text = summary(&sites.total());
    if live.is_empty() {
        text += "no sample is in use\n";
    }
    for (stack, counts) in live.iter().take(rows) {
        _ = writeln!(
            text,
            "\n{} +- {} in {} in use, of {} in {} allocated",
            number::bytes(counts.live_bytes.value),
            number::bytes(counts.live_bytes.half_width()),
            blocks(counts.live_objects),
            number::bytes(counts.bytes.value),
            blocks(counts.objects)
        );
        frames(&mut text, stack);
    }
    rest(&mut text, live.len().saturating_sub(rows), "stack");
    text
}

/// What grew and what shrank from one profile to another, by stack: what is in use, and else what was allocated.
pub fn difference(before: &Sites, after: &Sites, rows: usize) -> String {
    let stacks: BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
    let of = |sites: &Sites, stack: &[Frame]| sites.0.get(stack).copied().unwrap_or_default();
    let mut changes: Vec<_> = stacks
        .into_iter()
        .map(|stack| {
            let (before, after) = (of(before, stack), of(after, stack));
            (stack, after.live_bytes - before.live_bytes, after.bytes - before.bytes, before, after)
        })
        .collect();
    changes.sort_by(|one, other| {
        let key = |live: Estimate, all: Estimate| (live.value.abs(), all.value.abs());
        key(other.1, other.2).partial_cmp(&key(one.1, one.2)).expect("sums are numbers")
    });
    let (old, new) = (before.total(), after.total());
    let mut text = String::new();
    for (what, old, new) in [("in use", old.live_bytes, new.live_bytes), ("allocated", old.bytes, new.bytes)] {
        let change = new - old;
        _ = writeln!(
            text,
            "{what}: {} from {} to {}: {}",
            verdict(change),
            number::bytes(old.value),
            number::bytes(new.value),
            signed(change)
        );
    }
    let (clear, unclear): (Vec<_>, Vec<_>) =
        changes.iter().partition(|(_, live, all, ..)| is_clear(*live) || is_clear(*all));
    for (stack, live, all, old, new) in clear.iter().take(rows) {
        _ = writeln!(
            text,
            "\n{}: in use {} ({} to {}), allocated {}",
            verdict(if is_clear(*live) { *live } else { *all }),
            signed(*live),
            number::bytes(old.live_bytes.value),
            number::bytes(new.live_bytes.value),
            signed(*all)
        );
        frames(&mut text, stack);
    }
    rest(&mut text, clear.len().saturating_sub(rows), "stack");
    if !unclear.is_empty() {
        _ = writeln!(text, "\n{} changed by no more than samples vary", counted(unclear.len(), "stack"));
    }
    text
}

fn is_clear(change: Estimate) -> bool {
    change.value.abs() > change.half_width()
}

fn verdict(change: Estimate) -> &'static str {
    match change.value {
        _ if !is_clear(change) => "unclear",
        value if value > 0.0 => "grew",
        _ => "shrank",
    }
}

/// A difference of bytes, with its interval.
fn signed(change: Estimate) -> String {
    let sign = if change.value < 0.0 { "-" } else { "+" };
    format!("{sign}{} +- {}", number::bytes(change.value.abs()), number::bytes(change.half_width()))
}

fn summary(total: &Counts) -> String {
    format!(
        "in use: {} +- {} in {}; allocated: {} +- {} in {}\n",
        number::bytes(total.live_bytes.value),
        number::bytes(total.live_bytes.half_width()),
        blocks(total.live_objects),
        number::bytes(total.bytes.value),
        number::bytes(total.bytes.half_width()),
        blocks(total.objects)
    )
}

fn blocks(count: f64) -> String {
    format!("{count:.0} block{}", if count.round() == 1.0 { "" } else { "s" })
}

fn percent(part: Estimate, whole: Estimate) -> String {
    if whole.value > 0.0 { format!("{:.1}", part.value / whole.value * 100.0) } else { "-".into() }
}

fn frames(text: &mut String, stack: &[Frame]) {
    for frame in stack.iter().take(FRAMES) {
        _ = match &*frame.place {
            "" => writeln!(text, "    {}", frame.name),
            place => writeln!(text, "    {}  {place}", frame.name),
        };
    }
    if stack.len() > FRAMES {
        _ = writeln!(text, "    and {} more", stack.len() - FRAMES);
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn rest(text: &mut String, count: usize, what: &str) {
    if count > 0 {
        _ = writeln!(text, "\nand {} more; --top N shows N", counted(count, what));
    }
}
