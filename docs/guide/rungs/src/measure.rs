//! How a rung is measured against the one before: in turn, each value in a process of its own, as ratios.
//!
//! A block of the measurement is one value of each arm, in random order. So what the machine does meanwhile meets all
//! alike, and the ratio within a block is free of most of it. The arm before runs twice: how far its two results lie
//! apart is what this machine can tell.

use std::process::Command;

use crate::checker::Random;
use crate::workload::{Unit, WORKLOADS, Workload};
use crate::{RUNGS, giving_back};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Blocks: ratios of each kind.
    pub blocks: usize,
    /// Work, as a share of the usual in percent.
    pub percent: usize,
}

/// A geometric mean of ratios, with the bounds of its 95 % t interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    /// The mean.
    pub mean: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// Student's t for 95 %, two-sided, by degrees of freedom from 1 on; beyond the table that of the normal distribution is
/// 4 % too small at most.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The ratio of pairs, each of a value and what it is taken to. `None` below two pairs, or if a value is not positive.
#[must_use]
pub fn ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    if pairs.len() < 2 || pairs.iter().any(|(value, to)| !(*value > 0.0 && *to > 0.0)) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(value, to)| (value / to).ln()).collect();
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = STUDENT.get(logs.len() - 2).copied().unwrap_or(1.96) * (variance / n).sqrt();
    Some(Ratio { mean: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
}

/// One value of `workload` on a rung, from a process of its own.
///
/// # Errors
///
/// The process could not be started, failed, or said no number.
pub fn sample(rung: usize, workload: &Workload, percent: usize) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let mut command = Command::new(&program);
    command.args(["--sample", RUNGS[rung].0, workload.name, "--percent", &percent.to_string()]);
    if std::env::var_os("PERSEQ_RELEASE").is_none() {
        command.env("PERSEQ_RELEASE", giving_back::PERIOD_MS.to_string()); // the same period for all
    }
    let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} on {}: {}, {}", workload.name, RUNGS[rung].0, output.status, why.trim()));
    }
    said.trim().parse().map_err(|_| format!("{} on {} said no number: {said}", workload.name, RUNGS[rung].0))
}

/// Measures a rung, which is not the lowest, against the one before and returns a table.
///
/// # Errors
///
/// As for [`sample`].
pub fn table(rung: usize, order: Order) -> Result<String, String> {
    let (before, after) = (RUNGS[rung - 1].0, RUNGS[rung].0);
    let again = format!("{before} again");
    let mut text = format!(
        "{after} beside {before}: n = {} blocks in random order, a process for each value. Medians, and ratios to {before}\n\
         as geometric means with 95 % t intervals. Below 1 is less time or less memory.\n\n\
         {:<14} {:>14} {:>14}   {:<22} {:<22}\n",
        order.blocks, "", before, after, after, again
    );
    let mut random = Random::new(order.blocks as u64);
    for workload in &WORKLOADS {
        let mut values: [Vec<f64>; 3] = Default::default();
        for _ in 0..order.blocks {
            let mut arms = [(0, rung - 1), (1, rung), (2, rung - 1)];
            for last in (1..arms.len()).rev() {
                arms.swap(last, random.below(last + 1));
            }
            for (arm, rung) in arms {
                values[arm].push(sample(rung, workload, order.percent)?);
            }
        }
        let to = |arm: usize| {
            let pairs: Vec<_> = values[arm].iter().copied().zip(values[0].iter().copied()).collect();
            ratio(&pairs).map_or_else(
                || "no ratio".into(),
                |Ratio { mean, low, high }| format!("{mean:.3} [{low:.3}, {high:.3}]"),
            )
        };
        let of = |arm: usize| in_unit(median(&values[arm]), workload.unit);
        text += &format!("{:<14} {:>14} {:>14}   {:<22} {:<22}\n", workload.name, of(0), of(1), to(1), to(2));
    }
    Ok(text)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn in_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => format!("{value:.1} ns"),
        Unit::Bytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // Logarithms -1, 0 and 1: mean 0, standard error 1/sqrt(3), t with two degrees of freedom.
        let e = std::f64::consts::E;
        let found = ratio(&[(1.0, e), (2.0, 2.0), (e, 1.0)]).expect("three pairs");
        assert!((found.mean - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.high.ln() - 4.303 / 3_f64.sqrt()).abs() < 1e-9, "{found:?}");
        assert!((found.low * found.high - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(ratio(&[(1.0, 1.0)]), None, "one pair has no spread");
        assert_eq!(ratio(&[(1.0, 1.0), (0.0, 1.0)]), None, "zero has no logarithm");
        assert_eq!((median(&[3.0, 1.0]), median(&[5.0, 1.0, 2.0])), (2.0, 2.0));
    }
}
