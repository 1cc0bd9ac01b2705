//! Other allocators beside perseq: the classic patterns on each, through `malloc` and `free`, by one and the same worker.
//!
//! The experiments compare modes of one allocator and inline its fast path. Here nothing is inlined for anybody: each
//! allocator is a library that is preloaded, and a sample counts only if the worker saw its own calls lead there
//! ([`crate::peers::probe`]). The rest is as in the experiments: a fresh process to a sample, shuffled blocks, the
//! baseline twice in each, ratios with paired t intervals.

mod analysis;
pub mod arm;
mod plan;
mod report;
mod study;
mod work;
pub mod worker;

pub use arm::{Arm, SYSTEM, chosen};
pub use study::{Run, Suite};

use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents, Reading};
use crate::harness::manifest::Manifest;
use crate::harness::part::Shard;
use crate::harness::study::Study;
use crate::harness::{conduct, manifest as manifests};
use crate::host::Host;
use crate::output;
use crate::pattern::{PATTERNS, Pattern};
use crate::report::document::Block;
use plan::Amount;
use regex::Regex;
use std::path::{Path, PathBuf};
use study::About;

/// Options of `perseq suite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq suite --list                                           patterns and allocators, and what is missing
  perseq suite --only system,percpu,perthread --percent 5       a few seconds
  perseq suite --allocator mine=./libmine.so --profile standard
  perseq suite --report runs/TIME-suite-quick                   the report again, from the rows")]
pub struct Arguments {
    /// A further allocator: its name, the library to preload, and variables it runs with. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH[,VARIABLE=VALUE]")]
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
    /// Threads of a pattern that has several. Default: as many as CPUs are allowed, 2 at least; in `standard` 1, 2 and 8
    /// for each CPU. Threads that share a CPU share its work.
    #[arg(long, value_delimiter = ',', value_name = "N,M", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<Vec<u64>>,
    /// Seed of every random choice. Default: drawn, and recorded.
    #[arg(long)]
    seed: Option<u64>,
    /// Directory to create for the run. Default: `runs/TIME-suite-PROFILE`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take only part K of N of the plan; `perseq merge` joins the parts. The seed decides the plan, so all name the same.
    #[arg(long, value_name = "K/N", requires = "seed")]
    shard: Option<Shard>,
    /// Print the patterns and the allocators, and stop.
    #[arg(long)]
    list: bool,
    /// Build the report of this run again from its rows, and stop.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// With --report: read files that were changed as well, and mark what is made of them.
    #[arg(long, requires = "report")]
    accept_changed: bool,
}

/// `perseq suite`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(root) = &arguments.report {
        let archive = Archive::open(root)?;
        if root.join("programs").is_dir() {
            return Err(Failure::usage(
                "suite --report: real programs are a part of this one; expected `perseq report`",
            ));
        }
        let run = archive.read::<Suite>(Reading::accepting(arguments.accept_changed))?;
        return again(&archive, run, Vec::new());
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
    let mut amount = Amount {
        blocks: arguments.blocks.unwrap_or(blocks),
        percent: arguments.percent.unwrap_or(percent),
        threads: match (&arguments.threads, arguments.profile.as_str()) {
            (Some(threads), _) => threads.iter().map(|threads| *threads as usize).collect(),
            (None, "standard") => [1, 2, 8].map(|per_cpu| per_cpu * cpus).into(),
            (None, _) => vec![cpus.max(2)],
        },
        cpus,
        seed: arguments.seed.unwrap_or_else(rand::random),
    };
    amount.threads.sort_unstable();
    amount.threads.dedup();
    let names: Vec<_> = patterns.iter().map(|pattern| pattern.name.to_owned()).collect();
    let cells = plan::cells(&names, &amount.threads, cpus).unwrap_or_default();
    let plan = plan::make(&cells, &arms, &arguments.baseline, &amount);
    let mut manifest = manifest(&arguments.profile, &amount, arms.clone(), &arguments.baseline, names, plan.len())?;
    let plan = manifest.cut(arguments.shard, plan)?;
    manifest.about.planned = plan.len();
    let archive = Archive::create(arguments.out.as_deref(), &manifest.run_id)?;
    manifests::warn_of_debug_build(&manifest.tool);
    let run = Contents::new(&archive, manifest, plan)?;
    finish(&archive, run, Suite { arms })
}

/// The manifest of a run that begins now.
fn manifest(
    profile: &str,
    amount: &Amount,
    allocators: Vec<Arm>,
    baseline: &str,
    patterns: Vec<String>,
    planned: usize,
) -> Result<Manifest<About>, Failure> {
    let run_id = format!("{}-suite-{profile}", manifests::stamp());
    let about = About {
        profile: profile.into(),
        blocks: amount.blocks,
        threads: amount.threads.clone(),
        cpus: amount.cpus,
        percent: amount.percent,
        baseline: baseline.into(),
        patterns,
        allocators,
        planned,
    };
    Manifest::new(Suite::KIND, run_id, amount.seed, &Host::read(), about)
}

/// Takes what is missing and writes the report.
pub fn finish(archive: &Archive, mut run: Run, suite: Suite) -> Result<Exit, Failure> {
    if !conduct::complete(&suite, archive, &mut run)? {
        return Ok(Exit::Partial);
    }
    let exit = conduct::verdict(&run.rows);
    report::write(archive, run, Vec::new()).and_then(|path| say(&path))?;
    Ok(exit)
}

/// The report again, from the rows, with a section on real programs.
pub fn again(archive: &Archive, run: Run, programs: Vec<Block>) -> Result<Exit, Failure> {
    report::write(archive, run, programs).and_then(|path| say(&path)).map(|()| Exit::Done)
}

/// The suite on the allocators that a run recorded.
pub fn resumed(run: &Run, choice: &arm::Choice) -> Result<Suite, Failure> {
    arm::again(&run.manifest.about.allocators, choice).map(|arms| Suite { arms })
}

fn say(path: &Path) -> Result<(), Failure> {
    output::print(&format!("{}\n", path.display()))
}

fn listing(patterns: &[&Pattern], arms: &[Arm]) -> String {
    let mut text = String::from("patterns\n");
    for pattern in patterns {
        text += &format!("  {:14} {}\n  {:14} {}\n", pattern.name, pattern.what, "", pattern.origin);
        let differs = pattern.differs.map(|differs| format!("  {:14} differs: {differs}\n", ""));
        text += &differs.unwrap_or_default();
    }
    text += "\nallocators\n";
    arms.iter().for_each(|arm| text += &format!("  {}\n", arm.line()));
    text
}
