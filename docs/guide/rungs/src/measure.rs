//! How a rung is measured against the one before: in turn, each value in a process of its own, as ratios.
//!
//! A block of the measurement is one value of each arm, in random order. So what the machine does meanwhile meets all
//! alike, and the ratio within a block is free of most of it. The arm before runs twice: how far its two results lie
//! apart is what this machine can tell.

use std::process::Command;

use perseq_statistics::{Estimate, Paired, median};

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
            let pairs: Vec<_> = values[0].iter().copied().zip(values[arm].iter().copied()).collect();
            Paired::new(&pairs).and_then(|pairs| pairs.t()).map_or_else(
                || "no ratio".into(),
                |Estimate { ratio, low, high }| format!("{ratio:.3} [{low:.3}, {high:.3}]"),
            )
        };
        let of = |arm: usize| in_unit(median(&mut values[arm].clone()), workload.unit);
        text += &format!("{:<14} {:>14} {:>14}   {:<22} {:<22}\n", workload.name, of(0), of(1), to(1), to(2));
    }
    Ok(text)
}

fn in_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => format!("{value:.1} ns"),
        Unit::Bytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
    }
}
