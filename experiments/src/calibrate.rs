//! `perseq calibrate`: the per-thread mode beside the thread caches of other allocators, so that nobody has to take our
//! word for it that it is a fair rival.
//!
//! The work is that of E01, E02 and E05, in the cells of the profile `quick`, through `malloc` and `free`, each allocator
//! preloaded, so nothing is inlined for anybody. A block is one shuffled pass over the allocators, one process each, which
//! take turns where the samples of the experiment do. The table is printed and not kept: it is a check of the baseline, no
//! result about allocators.

use crate::definition;
use crate::experiment::{self, Question, on_the_stack, padded, single};
use crate::failure::{Exit, Failure};
use crate::harness::place::padding;
use crate::harness::process::{Ended, Job};
use crate::harness::study::{self, Refusal};
use crate::harness::task::Task;
use crate::harness::turns;
use crate::output;
use crate::plan::{self, deal};
use crate::report::number;
use crate::subject::Subject;
use crate::suite::arm;
use crate::worker::Report;
use crate::workload::think;
use perseq_statistics::{Paired, median};
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
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (links_per_ms, cpus) = (think::calibrate(), crate::host::limits::Limits::read().cpus);
    let stack = arms.iter().map(|arm| on_the_stack(&arm.environment().collect::<Vec<_>>())).max().unwrap_or(0);
    let mut drawn = None;
    let mut text = arms.iter().map(|arm| format!("{}\n", arm.line())).collect::<String>();
    text += &format!(
        "Medians of {} processes, and in brackets the ratio to {BASELINE}, paired by block. Seed {seed}.\n\n",
        arguments.blocks
    );
    text += &row("", arms.iter().map(|arm| arm.name.clone()));
    for definition in definition::all().iter().filter(|definition| EXPERIMENTS.contains(&definition.id.as_str())) {
        let Some(profile) = definition.profiles.get("quick") else { continue };
        for mut cell in definition.cells(profile, cpus) {
            cell.parameters.insert("measure_ms".into(), arguments.measure_ms);
            let mut values = vec![Vec::new(); arms.len()];
            for layout in deal(&definition.workload, arguments.blocks, &mut random) {
                let (seed, pad) = (random.random(), random.random_range(0..4096));
                let mut order: Vec<usize> = (0..arms.len()).collect();
                order.shuffle(&mut random);
                let sample = single(&definition.id, &definition.workload, Subject::System, cell.parameters.clone());
                let question = Question {
                    layout,
                    links_per_ms: Some(links_per_ms),
                    turns: plan::turns(definition, arguments.measure_ms),
                    addresses: Some(seed),
                    ..sample.task
                };
                let start = |place: &usize| {
                    let variables = padded(arms[*place].environment().collect(), padding(pad), stack);
                    job(variables, &question, seed, arms.len())
                };
                let jobs: Vec<_> = order.iter().map(start).collect();
                let ended = turns::observe_all(&jobs, question.turns, seed);
                for (place, ended) in order.into_iter().zip(ended) {
                    let failed = |reason| Failure::host(format!("{} in {}: {reason}", arms[place].name, cell.id));
                    let report = ended.and_then(|ended| read(&question, ended)).map_err(failed)?;
                    drawn = drawn.or(report.drawn);
                    let value = report.measurement.metrics.get(&definition.headline);
                    values[place].push((layout, *value.ok_or_else(|| failed("it has no value".into()))?));
                }
            }
            let unit = definition.metric(&definition.headline).map_or("", |metric| &metric.unit);
            let base = values.iter().zip(&arms).find(|(_, arm)| arm.name == BASELINE).map(|(values, _)| values.clone());
            let base = base.unwrap_or_default();
            let entry = |values: &Vec<(u64, f64)>| {
                let pairs: Vec<_> =
                    values.iter().zip(&base).map(|((layout, value), (_, base))| (*layout, *base, *value)).collect();
                let ratio = Paired::in_layouts(&pairs).map(|paired| number::ratio(paired.ratio()));
                let middle = median(&mut values.iter().map(|(_, value)| *value).collect::<Vec<_>>());
                format!("{} [{}]", number::short(middle), ratio.as_deref().unwrap_or("none"))
            };
            text += &row(&format!("{} {} ({unit})", cell.id, definition.headline), values.iter().map(entry));
        }
    }
    text.extend(drawn.map(|reason| format!("\nNot at the addresses of their blocks: {reason}.\n")));
    output::print(&text)?;
    Ok(Exit::Done)
}

fn row(name: &str, entries: impl Iterator<Item = String>) -> String {
    let entries: String = entries.map(|entry| format!("{entry:>22}")).collect();
    format!("{name:48}{entries}\n")
}

/// The process of one allocator, one of so many, with its variables.
fn job(variables: Vec<(String, String)>, question: &Question, seed: u64, count: usize) -> Result<Job, String> {
    let order = experiment::order(question, seed, None);
    let patience = question.estimate() * 10 + Duration::from_secs(20);
    let job = Job::own("worker", &order, patience)?.alongside(count);
    Ok(job.environment(variables).environment(question.undrawn()))
}

/// What it reported.
fn read(question: &Question, ended: Ended) -> Result<Report, String> {
    let Ended::Exited(ended) = ended else { return Err("it did not end".into()) };
    let report = study::json(&ended).map_err(|refusal| match refusal {
        Refusal::Failed(reason) | Refusal::Missing(reason) => reason,
    })?;
    experiment::fault(question, &report).map_or(Ok(report), Err)
}
