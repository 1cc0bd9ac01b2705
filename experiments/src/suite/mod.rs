//! Other allocators beside perseq: the classic patterns on each, through `malloc` and `free`, by one and the same worker.
//!
//! The experiments compare modes of one allocator and inline its fast path. Here nothing is inlined for anybody: each
//! allocator is a library that is preloaded, and a sample counts only if the worker saw its own calls lead there
//! ([`crate::peers::probe`]). The rest is as in the experiments: a fresh process to a sample, shuffled blocks, the
//! baseline twice in each, ratios with paired t intervals.

mod analysis;
mod arm;
mod plan;
mod report;
mod row;
mod store;
pub mod worker;

pub use arm::{Arm, SYSTEM, chosen};

use crate::failure::{Exit, Failure};
use crate::gate::NOISY_SHARE;
use crate::manifest;
use crate::output;
use crate::pattern::{PATTERNS, Pattern};
use crate::sample::Status;
use plan::{Amount, Planned};
use regex::Regex;
use row::Row;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use store::{Manifest, Store};

/// Options of `perseq suite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq suite --list                                           patterns and allocators, and what is missing
  perseq suite --only system,percpu,perthread --percent 5       a few seconds
  perseq suite --allocator mine=./libmine.so --profile standard
  perseq suite --report runs/TIME-suite-quick                   the report again, from the rows")]
pub struct Arguments {
    /// A further allocator: its name and the library to preload. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH")]
    allocators: Vec<String>,
    /// Folder of `perseq peers`. Default: `perseq/peers` in the user's cache, if it is there.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Only these allocators, by name.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    only: Option<Vec<String>>,
    /// The allocator every ratio is taken to.
    #[arg(long, default_value = SYSTEM, value_name = "NAME")]
    baseline: String,
    /// How much to measure: `quick` is a smoke test, `standard` may be cited.
    #[arg(long, default_value = "quick", value_parser = ["quick", "standard"])]
    profile: String,
    /// Only patterns whose name matches.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Blocks per pattern instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    blocks: Option<u64>,
    /// Percent of the standard profile's work per sample, instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    percent: Option<u64>,
    /// Threads of a pattern that has several. Default: as many as CPUs are allowed, 2 at least.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// Seed of every random choice. Default: drawn, and recorded.
    #[arg(long)]
    seed: Option<u64>,
    /// Directory to create for the run. Default: `runs/TIME-suite-PROFILE`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the patterns and the allocators, and stop.
    #[arg(long)]
    list: bool,
    /// Build the report of this run again from its rows, and stop.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// `perseq suite`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(root) = &arguments.report {
        return report::write(&Store::open(root)?).and_then(|path| say(&path)).map(|()| Exit::Done);
    }
    let matches = |pattern: &&Pattern| arguments.filter.as_ref().is_none_or(|filter| filter.is_match(pattern.name));
    let patterns: Vec<_> = PATTERNS.iter().filter(matches).collect();
    if patterns.is_empty() {
        let known: Vec<_> = PATTERNS.iter().map(|pattern| pattern.name).collect();
        return Err(Failure::usage(format!("no pattern matches --filter; expected one of {}", known.join(", "))));
    }
    let arms = arm::all(&arm::Choice {
        allocators: &arguments.allocators,
        peers: arguments.peers.as_deref(),
        libperseq: arguments.libperseq.as_deref(),
        only: arguments.only.as_deref(),
    })?;
    if arms.iter().all(|arm| arm.name != arguments.baseline) {
        let known: Vec<_> = arms.iter().map(|arm| arm.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failure::usage(format!("--baseline {}: expected one of {known}", arguments.baseline)));
    }
    if arguments.list {
        return output::print(&listing(&patterns, &arms)).map(|()| Exit::Done);
    }
    run(arguments, &patterns, arms)
}

fn run(arguments: &Arguments, patterns: &[&Pattern], arms: Vec<Arm>) -> Result<Exit, Failure> {
    let (blocks, percent) = if arguments.profile == "quick" { (3, 20) } else { (10, 100) };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let amount = Amount {
        blocks: arguments.blocks.unwrap_or(blocks),
        percent: arguments.percent.unwrap_or(percent),
        threads: arguments.threads.map_or(cpus.max(2), |threads| threads as usize),
        seed: arguments.seed.unwrap_or_else(rand::random),
    };
    let plan = plan::make(patterns, &arms, &arguments.baseline, &amount);
    let run_id = format!("{}-suite-{}", manifest::stamp(), arguments.profile);
    let root = arguments.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&run_id));
    let store = Store::create(&root)?;
    let mut manifest =
        Manifest::new(run_id, &arguments.profile, &amount, arms.clone(), &arguments.baseline, patterns, plan.len())?;
    store.write_manifest(&manifest)?;
    if manifest.tool.debug_assertions {
        eprintln!("warning: a debug build; its times are worth little");
    }
    let handler = || {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(Exit::Partial as i32);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::host(format!("cannot handle Ctrl-C: {error}")))?;
    let rows = samples(&store, &plan, &arms)?;
    let complete = rows.iter().filter(|row| row.status != Status::Rejected).count() == plan.len();
    if complete {
        manifest.finished_utc = Some(manifest::now());
        store.write_manifest(&manifest)?;
    }
    let path = report::write(&store)?;
    say(&path)?;
    let failed = rows.iter().filter(|row| matches!(row.status, Status::Failed | Status::Timeout)).count();
    if failed > 0 {
        eprintln!("{failed} samples failed; the report names each with its reason");
        return Ok(Exit::Invalid);
    }
    Ok(if complete { Exit::Done } else { Exit::Partial })
}

/// Takes every sample, unless interrupted.
fn samples(store: &Store, plan: &[Planned], arms: &[Arm]) -> Result<Vec<Row>, Failure> {
    let mut appender = store.appender()?;
    let may_repeat = (plan.len() as f64 * NOISY_SHARE).ceil() as usize;
    let (mut rows, mut repeated, mut said) = (Vec::new(), 0, 0);
    let time: f64 = plan.iter().map(|planned| planned.estimate().as_secs_f64()).sum();
    eprintln!("{} samples to take, about {time:.0} s on a quiet host", plan.len());
    for (index, planned) in plan.iter().enumerate() {
        if INTERRUPTED.load(Relaxed) {
            eprintln!("interrupted; the report shows what was measured so far");
            break;
        }
        let arm = arms.iter().find(|arm| arm.name == planned.allocator);
        let arm = arm.ok_or_else(|| Failure::usage(format!("no allocator `{}`", planned.allocator)))?;
        let first = if repeated >= may_repeat { 2 } else { 1 };
        for attempt in first..=2 {
            let row = row::take(planned, arm, attempt);
            appender.append(&row)?;
            let (status, reason) = (row.status, row.reason.clone().unwrap_or_default());
            rows.push(row);
            match status {
                Status::Rejected => repeated += 1,
                Status::Ok => break,
                _ => {
                    eprintln!("failed: {}: {reason}", planned.sample_id);
                    break;
                }
            }
        }
        let tenth = (index + 1) * 10 / plan.len();
        if tenth > said {
            said = tenth;
            eprintln!("{}/{} samples", index + 1, plan.len());
        }
    }
    Ok(rows)
}

fn say(path: &Path) -> Result<(), Failure> {
    output::print(&format!("{}\n", path.display()))
}

fn listing(patterns: &[&Pattern], arms: &[Arm]) -> String {
    let mut text = String::from("patterns\n");
    for pattern in patterns {
        text += &format!("  {:14} {}\n  {:14} {}\n", pattern.name, pattern.what, "", pattern.origin);
    }
    text += "\nallocators\n";
    arms.iter().for_each(|arm| text += &format!("  {}\n", arm.line()));
    text
}
