//! A profile as text: the functions that allocate most, what is still in use by stack, and what became of it from one
//! profile to another.

use super::sites::{Counts, Estimate, Frame, Sites};
use crate::report::number;
use perseq::live::FIRST_AGE;
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
        "\n{:>10} {:>9} {:>5} {:>10} {:>10} {:>5} {:>10} {:>9} {:>9} {:>7}  function",
        "in use", "+-", "%", "with calls", "allocated", "%", "with calls", "other CPU", "other thr", "lived"
    );
    for (name, Row { flat, cumulative }) in functions.iter().take(rows) {
        let cell = |sum: Estimate| number::bytes(sum.value);
        _ = writeln!(
            text,
            "{:>10} {:>9} {:>5} {:>10} {:>10} {:>5} {:>10} {:>9} {:>9} {:>7}  {name}",
            cell(flat.live_bytes),
            number::bytes(flat.live_bytes.half_width()),
            percent(flat.live_bytes, total.live_bytes),
            cell(cumulative.live_bytes),
            cell(flat.bytes),
            percent(flat.bytes, total.bytes),
            cell(cumulative.bytes),
            share(flat.other_cpu, flat.freed),
            share(flat.other_thread, flat.freed),
            median(&flat.ages).unwrap_or_else(|| "-".into()),
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
        _ = writeln!(text, "\n{} changed by no more than samples vary", number::count(unclear.len(), "stack"));
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
    let mut text = format!(
        "in use: {} +- {} in {}; allocated: {} +- {} in {}\n",
        number::bytes(total.live_bytes.value),
        number::bytes(total.live_bytes.half_width()),
        blocks(total.live_objects),
        number::bytes(total.bytes.value),
        number::bytes(total.bytes.half_width()),
        blocks(total.objects)
    );
    let shares = [total.other_cpu, total.other_thread].map(|part| part.share_of(total.freed));
    if let ([Some(cpu), Some(thread)], Some(lived)) = (shares, median(&total.ages)) {
        let percent = |(share, half_width): (f64, f64)| format!("{:.1} % +- {:.1}", share * 100.0, half_width * 100.0);
        _ = writeln!(
            text,
            "of freed bytes, {} were freed on another CPU than allocated, {} by another thread; half lived {}",
            percent(cpu),
            percent(thread),
            lived.replace(">=", "at least ").replace('<', "less than ")
        );
    }
    text
}

/// A part of what was freed, in percent.
fn share(part: Estimate, whole: Estimate) -> String {
    part.share_of(whole).map_or_else(|| "-".into(), |(share, _)| format!("{:.1} %", share * 100.0))
}

/// The end of the group of ages that the median is in.
fn median(ages: &[f64]) -> Option<String> {
    let all: f64 = ages.iter().sum();
    let mut sum = 0.0;
    let group = ages.iter().position(|age| {
        sum += age;
        sum * 2.0 >= all
    });
    let group = group.filter(|_| all > 0.0)?;
    let is_last = group + 1 == ages.len();
    let mut bound = FIRST_AGE * 10_u64.pow(group as u32 - u32::from(is_last));
    let mut units = ["us", "ms", "s"].iter();
    bound /= 1000;
    let mut unit = units.next()?;
    while bound >= 1000
        && let Some(larger) = units.next()
    {
        (bound, unit) = (bound / 1000, larger);
    }
    Some(format!("{}{bound} {unit}", if is_last { ">=" } else { "<" }))
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

fn rest(text: &mut String, count: usize, what: &str) {
    if count > 0 {
        _ = writeln!(text, "\nand {} more; --top N shows N", number::count(count, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_end_of_its_group() {
        let of = |group: usize| {
            let mut ages = [0.0; 9];
            (ages[0], ages[group]) = (1.0, 3.0);
            median(&ages).unwrap()
        };
        let found = [1, 2, 3, 4, 5, 6, 7, 8].map(of);
        assert_eq!(found, ["<100 us", "<1 ms", "<10 ms", "<100 ms", "<1 s", "<10 s", "<100 s", ">=100 s"]);
        assert_eq!(median(&[2.0, 1.0]), Some("<10 us".into()));
        assert_eq!(median(&[0.0; 9]), None);
    }
}
