//! `perseq calibrate`: the per-thread mode beside the thread caches of other allocators, so that nobody has to take our
//! word for it that it is a fair rival.
//!
//! The work is that of E01, E02 and E05, in the cells of the profile `quick`, through `malloc` and `free`, each allocator
//! preloaded, so nothing is inlined for anybody. A block is one shuffled pass over the allocators, one process each. The
//! table is printed and not kept: it is a check of the baseline, no result about allocators.

use crate::definition;
use crate::experiment::{Question, single};
use crate::failure::{Exit, Failure};
use crate::harness::process::{Ended, Job, observe};
use crate::harness::task::Task;
use crate::output;
use crate::subject::Subject;
use crate::suite::arm::{self, Arm};
use crate::worker::Report;
use crate::workload::{Order, copies, think};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::time::Duration;

/// Whose work it is.
const EXPERIMENTS: [&str; 3] = ["E01", "E02", "E05"];
/// What the ratios are taken to.
const BASELINE: &str = "perthread";

/// Options of `perseq calibrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq peers --only gperftools,mimalloc2,mimalloc3   fetch and build them
  perseq calibrate                                     the table
  perseq calibrate --only system --blocks 2            a few seconds")]
pub struct Arguments {
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Folder of `perseq peers`. Default: `perseq/peers` in the user's cache, if it is there.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// The allocators beside `perthread`, by name.
    #[arg(long, value_delimiter = ',', value_name = "A,B", default_value = "gperftools,mimalloc2,mimalloc3,system")]
    only: Vec<String>,
    /// Blocks per cell.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    blocks: u64,
    /// Measured milliseconds per sample.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    measure_ms: u64,
    /// Seed of every random choice. Default: drawn.
    #[arg(long)]
    seed: Option<u64>,
}

/// `perseq calibrate`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut names = vec![BASELINE.to_owned()];
    names.extend(arguments.only.iter().filter(|name| *name != BASELINE).cloned());
    let arms = arm::all(&arm::Choice {
        allocators: &[],
        peers: arguments.peers.as_deref(),
        libperseq: arguments.libperseq.as_deref(),
        only: Some(&names),
    })?;
    let mut random = ChaCha8Rng::seed_from_u64(arguments.seed.unwrap_or_else(rand::random));
    let (links_per_ms, cpus) = (think::calibrate(), crate::host::limits::Limits::read().cpus);
    let mut text = arms.iter().map(|arm| format!("{}\n", arm.line())).collect::<String>();
    text += &format!("Medians of {} processes, and in brackets the ratio to {BASELINE}.\n\n", arguments.blocks);
    text += &row("", arms.iter().map(|arm| arm.name.clone()));
    for definition in definition::all().iter().filter(|definition| EXPERIMENTS.contains(&definition.id.as_str())) {
        let Some(profile) = definition.profiles.get("quick") else { continue };
        for mut cell in definition.cells(profile, cpus) {
            cell.parameters.insert("measure_ms".into(), arguments.measure_ms);
            let mut values = vec![Vec::new(); arms.len()];
            for _ in 0..arguments.blocks {
                let (layout, seed) = (random.random_range(0..copies(&definition.workload)), random.random());
                let mut order: Vec<usize> = (0..arms.len()).collect();
                order.shuffle(&mut random);
                for place in order {
                    let sample = single(&definition.id, &definition.workload, Subject::System, cell.parameters.clone());
                    let order = told(&sample.task, layout, seed, links_per_ms);
                    let report = measure(&arms[place], &order, sample.task.estimate())
                        .map_err(|reason| Failure::usage(format!("{} in {}: {reason}", arms[place].name, cell.id)))?;
                    let value = report.measurement.metrics.get(&definition.headline).copied();
                    values[place].push(value.ok_or_else(|| Failure::usage(format!("{}: no value", cell.id)))?);
                }
            }
            let unit = definition.metric(&definition.headline).map_or("", |metric| &metric.unit);
            let base = values.iter().zip(&arms).find(|(_, arm)| arm.name == BASELINE).map(|(values, _)| values.clone());
            let base = base.unwrap_or_default();
            let entry = |values: &Vec<f64>| {
                let logarithms: f64 = values.iter().zip(&base).map(|(value, base)| (value / base).ln()).sum();
                let ratio = (logarithms / values.len() as f64).exp();
                format!("{} [{ratio:.2}]", short(median(values.clone())))
            };
            text += &row(&format!("{} {} ({unit})", cell.id, definition.headline), values.iter().map(entry));
        }
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

fn row(name: &str, entries: impl Iterator<Item = String>) -> String {
    let entries: String = entries.map(|entry| format!("{entry:>18}")).collect();
    format!("{name:48}{entries}\n")
}

fn told(question: &Question, layout: u64, seed: u64, links_per_ms: u64) -> Order {
    Order {
        workload: question.workload.clone(),
        parameters: question.params.clone(),
        subject: question.mode_requested,
        seed,
        layout,
        planted_percent: None,
        links_per_ms: Some(links_per_ms),
        timed: true,
        counters: None,
        trace_file: None,
    }
}

/// One process on one allocator.
fn measure(arm: &Arm, order: &Order, estimate: Duration) -> Result<Report, String> {
    let job = Job::own("worker", order, estimate * 10 + Duration::from_secs(20))?.environment(arm.environment());
    let Ended::Exited(ended) = observe(&job)? else { return Err("it did not end".into()) };
    if !ended.status.success() {
        return Err(ended.last_line());
    }
    let report: Report = serde_json::from_slice(&ended.stdout).map_err(|error| error.to_string())?;
    match report.fault {
        None if report.verified => Ok(report),
        fault => Err(fault.unwrap_or_else(|| "it is not verified".into())),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Three digits, and a letter for thousands and millions.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.1}k", value / 1e3),
        value => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([short(8.25), short(12_345.0), short(98_765_432.0)], ["8.2", "12.3k", "98.8M"]);
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }
}
