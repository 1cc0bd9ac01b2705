//! Size classes for a program: from a histogram of the sizes it asks for to the file that perseq is built with.
//!
//! Of all tables with at most so many classes in which no request wastes more than a bound, the one that wastes the
//! fewest bytes over the histogram, exactly, by dynamic programming: the best table that ends with one class is the
//! best table of one class less that ends with a smaller one, and the requests between the two. The bound holds for
//! sizes that the histogram has not seen as well, so large classes stay where nothing is known of them.

use crate::failure::{Exit, Failure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Options of `classes`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Requests as lines of `size,count`, as `libperseq` writes them when it is built with the feature `record-sizes`.
    histogram: PathBuf,
    /// Most classes.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=254))]
    most: u64,
    /// Most per cent of an object that a request may leave unused; 15 bytes always may be.
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0)]
    waste: f64,
    /// Largest class in bytes, a power of two: larger requests get whole pages.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 10)]
    max_small: u64,
    /// Alignment of every request: 16 for C and C++, 8 for Rust.
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = PossibleValuesParser::new(["8", "16"]).map(|text| if text == "8" { 8u64 } else { 16 }))]
    align: u64,
    /// What the table is called in statistics.
    #[arg(long, default_value = "chosen")]
    name: String,
    /// File to write, for `PERSEQ_BUILD_CONFIG`. Default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Up to here classes are multiples of 8, above of 128.
const FINE: u64 = 1024;
/// Bytes that may be wasted whatever the bound: the step between small classes.
const ALWAYS: u64 = 15;

/// Chooses and writes.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = &arguments.histogram;
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, "read", error))?;
    if !(1.0..=90.0).contains(&arguments.waste) {
        return Err(Failure::usage(format!("--waste {}: expected 1 to 90 per cent", arguments.waste)));
    }
    if !arguments.max_small.is_power_of_two() || !(FINE..=256 << 10).contains(&arguments.max_small) {
        let expected = "expected a power of two from 1024 to 262144";
        return Err(Failure::usage(format!("--max-small {}: {expected}", arguments.max_small)));
    }
    if arguments.name.is_empty() || !arguments.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(Failure::usage(format!("--name {}: expected letters, digits, -, _ and .", arguments.name)));
    }
    let histogram = Histogram::parse(path, &text)?;
    let candidates = candidates(arguments.max_small, arguments.align);
    let bound = arguments.waste / 100.0;
    let sizes = choose(&histogram, &candidates, arguments.most as usize, bound).map_err(|needed| {
        let Arguments { most, waste, .. } = arguments;
        Failure::usage(format!("--most {most}: at most {waste} % of waste needs at least {needed} classes"))
    })?;
    let table = write(arguments, &histogram, &sizes);
    match &arguments.out {
        Some(out) => std::fs::write(out, table).map_err(|error| Failure::file(out, "write", error))?,
        None => print!("{table}"),
    }
    Ok(Exit::Done)
}

/// How often each size was asked for, smallest first.
struct Histogram(Vec<(u64, u64)>);

impl Histogram {
    fn parse(path: &Path, text: &str) -> Result<Histogram, Failure> {
        let mut counts = std::collections::BTreeMap::<u64, u64>::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || (number == 0 && line == "size,count") {
                continue;
            }
            let fields = line.split_once(',');
            let pair = fields.and_then(|(size, count)| Some((size.trim().parse().ok()?, count.trim().parse().ok()?)));
            let Some((size, count)) = pair else {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(Failure::usage(format!("{place}: expected size,count as whole numbers, found {line:?}")));
            };
            let sum = counts.entry(size).or_default();
            *sum = u64::saturating_add(*sum, count);
        }
        if counts.values().all(|count| *count == 0) {
            return Err(Failure::usage(format!("{}: expected at least one request", path.display())));
        }
        Ok(Histogram(counts.into_iter().collect()))
    }

    /// Requests up to `size`, and their bytes.
    fn up_to(&self, size: u64) -> (u128, u128) {
        let small = self.0.iter().take_while(|(request, _)| *request <= size);
        small.fold((0, 0), |(count, bytes), (request, times)| {
            (count + u128::from(*times), bytes + u128::from(*times) * u128::from(*request))
        })
    }

    /// Bytes that objects of `sizes` take for the requests that are not too large, all aligned to `align`.
    fn taken(&self, sizes: &[u64], align: u64) -> u128 {
        let fits = |size: u64, request: u64| size >= request && size.is_multiple_of(align);
        let class = |request: u64| sizes.iter().copied().find(|size| fits(*size, request)).unwrap_or(0);
        self.0.iter().map(|(request, times)| u128::from(class(*request)) * u128::from(*times)).sum()
    }
}

/// Sizes a class may have.
fn candidates(max_small: u64, align: u64) -> Vec<u64> {
    let fine = (1..=FINE / align).map(|step| step * align);
    fine.chain((FINE / 128 + 1..=max_small / 128).map(|step| step * 128)).collect()
}

/// Whether requests above `below` may have objects of `size`.
fn allowed(below: u64, size: u64, bound: f64) -> bool {
    let most = size - below - 1;
    most <= ALWAYS || most as f64 <= bound * size as f64
}

/// The sizes with the least waste, or how many classes the bound needs.
fn choose(histogram: &Histogram, candidates: &[u64], most: usize, bound: f64) -> Result<Vec<u64>, usize> {
    // Candidate 0 is none: every table begins there.
    let sizes: Vec<u64> = std::iter::once(0).chain(candidates.iter().copied()).collect();
    let below: Vec<(u128, u128)> = sizes.iter().map(|size| histogram.up_to(*size)).collect();
    let waste = |from: usize, to: usize| {
        let (count, bytes) = (below[to].0 - below[from].0, below[to].1 - below[from].1);
        u128::from(sizes[to]) * count - bytes
    };
    let last = sizes.len() - 1;
    // Least waste of a table that ends with each candidate, by its number of classes, and what stands before the end.
    let mut least: Vec<Option<u128>> = vec![None; sizes.len()];
    least[0] = Some(0);
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut best: Option<(u128, usize)> = None;
    for classes in 1..=most {
        let (mut next, mut from) = (vec![None; sizes.len()], vec![0; sizes.len()]);
        for to in 1..=last {
            for previous in (0..to).rev() {
                if !allowed(sizes[previous], sizes[to], bound) {
                    break; // and smaller ones waste more
                }
                let Some(sum) = least[previous].map(|sum| sum + waste(previous, to)) else { continue };
                if next[to].is_none_or(|found| sum < found) {
                    (next[to], from[to]) = (Some(sum), previous);
                }
            }
        }
        before.push(from);
        least = next;
        if let Some(sum) = least[last]
            && best.is_none_or(|(found, _)| sum < found)
        {
            best = Some((sum, classes));
        }
    }
    let Some((_, classes)) = best else { return Err(fewest(&sizes, bound)) };
    let (mut chosen, mut at) = (Vec::new(), last);
    for from in before[..classes].iter().rev() {
        chosen.push(sizes[at]);
        at = from[at];
    }
    chosen.reverse();
    Ok(chosen)
}

/// How many classes the bound needs: each as large as it allows.
fn fewest(sizes: &[u64], bound: f64) -> usize {
    let (mut classes, mut at) = (0, 0);
    while at + 1 < sizes.len() {
        at = (at + 1..sizes.len()).take_while(|to| allowed(sizes[at], sizes[*to], bound)).last().unwrap_or(at + 1);
        classes += 1;
    }
    classes
}

/// The file for the build.
fn write(arguments: &Arguments, histogram: &Histogram, sizes: &[u64]) -> String {
    let (count, bytes) = histogram.up_to(arguments.max_small);
    let (all, _) = histogram.up_to(u64::MAX);
    let mut now = Vec::new();
    perseq::for_each_class(&mut |class| now.push(class.size));
    let (small, small_bytes) = histogram.up_to(now.last().copied().unwrap_or(0));
    let percent = |taken: u128, asked: u128| 100.0 * (taken - asked) as f64 / (taken as f64).max(1.0);
    let mut toml = String::new();
    let mut line = |text: String| writeln!(toml, "{text}").expect("a string");
    line(format!("# {} classes for {count} requests; {} more were larger.", sizes.len(), all - count));
    line(format!("# Unused in objects: {:.2} %.", percent(histogram.taken(sizes, arguments.align), bytes)));
    let unused = percent(histogram.taken(&now, arguments.align), small_bytes);
    line(format!(
        "# With the {} classes of {:?}, for {small} requests: {unused:.2} %.",
        now.len(),
        perseq::BUILD_CONFIG
    ));
    line(format!(
        "# From {}, at most {} classes and {} % of waste.",
        arguments.histogram.display(),
        arguments.most,
        arguments.waste
    ));
    line(format!("name = {:?}", arguments.name));
    line("sizes = [".into());
    for row in sizes.chunks(16) {
        let row: Vec<_> = row.iter().map(u64::to_string).collect();
        line(format!("    {},", row.join(", ")));
    }
    line("]".into());
    toml
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(pairs: &[(u64, u64)]) -> Histogram {
        Histogram(pairs.to_vec())
    }

    /// Every table there is, for comparison.
    fn by_trying_all(histogram: &Histogram, candidates: &[u64], most: usize, bound: f64) -> Option<u128> {
        let last = candidates.len() - 1;
        let tables = (0u32..1 << last).filter(|set| set.count_ones() < most as u32);
        let wastes = tables.filter_map(|set| {
            let sizes: Vec<_> =
                (0..=last).filter(|&at| at == last || set >> at & 1 == 1).map(|at| candidates[at]).collect();
            let starts = std::iter::once(0).chain(sizes.iter().copied());
            let fits = starts.zip(&sizes).all(|(below, size)| allowed(below, *size, bound));
            fits.then(|| histogram.taken(&sizes, 16) - histogram.up_to(candidates[last]).1)
        });
        wastes.min()
    }

    #[test]
    fn the_table_is_the_best_there_is() {
        let candidates: Vec<u64> = (1..=12).map(|step| step * 16).collect();
        let mut random = 1u64;
        for round in 0..60 {
            let pairs: Vec<_> = (0..12u64)
                .map(|place| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (place * 16 + 1 + (random >> 33) % 16, (random >> 40) % 100)
                })
                .collect();
            let histogram = histogram(&pairs);
            let (most, bound) = (1 + round % 8, [0.15, 0.3, 0.6, 0.9][round / 8 % 4]);
            let expected = by_trying_all(&histogram, &candidates, most, bound);
            let found = choose(&histogram, &candidates, most, bound);
            let waste = found.as_ref().ok().map(|sizes| histogram.taken(sizes, 16) - histogram.up_to(192).1);
            assert_eq!(waste, expected, "{most} classes, bound {bound}, {pairs:?}: {found:?}");
            if let Err(needed) = found {
                assert!(needed > most && choose(&histogram, &candidates, needed, bound).is_ok());
            }
        }
    }

    #[test]
    fn what_is_asked_for_most_wastes_nothing_and_large_classes_stay() {
        let histogram = histogram(&[(48, 1_000_000), (600, 500_000), (100_000, 7)]);
        let sizes = choose(&histogram, &candidates(32 << 10, 16), 40, 0.25).expect("enough classes");
        assert!(sizes.len() <= 40 && sizes.contains(&48) && sizes.contains(&608), "{sizes:?}");
        assert_eq!(sizes.last(), Some(&(32 << 10)));
        assert!(sizes.iter().filter(|size| **size > 4096).count() >= 6, "{sizes:?}");
        let starts = std::iter::once(0).chain(sizes.iter().copied());
        assert!(starts.zip(&sizes).all(|(below, size)| allowed(below, *size, 0.25)));
    }
}
