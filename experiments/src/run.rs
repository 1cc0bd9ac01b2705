//! `perseq run`: the experiments, from the command line to the report.

use crate::counters::{self, probe::Pmu};
use crate::definition::Rule;
use crate::experiment::{self, Experiments, Options, Sample};
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents};
use crate::harness::part::{self, Shard};
use crate::harness::progress::say;
use crate::harness::{conduct, manifest, place};
use crate::host::limits::Limits;
use crate::output;
use crate::own;
use crate::plan::{self, Choice};
use crate::report;
use crate::selftest;
use crate::subject::{BASELINE, Subject};
use crate::validity::{Outcome, TWIN_CHECK, Validity};
use crate::workload::think;
use perseq::Mode;
use regex::Regex;
use std::path::PathBuf;

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq run                                          the profile quick
  perseq run --profile standard --seed 1              the citable one; the same seed gives the same plan
  perseq run --filter 'E03/rule=B' --blocks 10        one question, answered well
  perseq run --modes percpu,percpu-lock --filter E01  other modes
  perseq run --profile full --dry-run --json          the plan, and nothing else
  perseq run --seed 1 --shard 2/8 --out parts/2       an eighth of the plan, for `perseq merge`
  perseq run --definition mine.toml                   an experiment of your own

Ctrl-C leaves a directory that `perseq resume` completes.")]
pub struct Arguments {
    /// How much to measure: `quick` is a smoke test, `standard` may be cited, `full` takes hours.
    #[arg(long, default_value = "quick", value_parser = ["quick", "standard", "full"])]
    profile: String,
    /// Run only cells whose id or experiment's title matches, for instance `E03/rule=B`.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Run the experiment of this file instead of perseq's own. May be given several times; experiments/README.md says
    /// what stands in it, and `perseq list --definition FILE` which cells it has.
    #[arg(long, value_name = "FILE")]
    definition: Vec<PathBuf>,
    /// Measure these modes instead of the profile's.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<Subject>>,
    /// Seed of every random choice. Default: drawn, and recorded.
    #[arg(long)]
    seed: Option<u64>,
    /// Blocks per cell instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(own::BLOCKS))]
    blocks: Option<u64>,
    /// Measured milliseconds per sample instead of the profile's.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(own::MEASURE_MS))]
    measure_ms: Option<u64>,
    /// Directory to create for the run. Default: `runs/TIME-PROFILE`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compress plan and rows when all are taken, as `perseq pack` does.
    #[arg(long)]
    compress: bool,
    /// Take only part K of N of the plan; `perseq merge` joins the parts. The seed decides the plan, so all name the same.
    #[arg(long, value_name = "K/N", requires = "seed")]
    shard: Option<Shard>,
    /// Print the plan and the time it takes, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON.
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Add the counter pass, which `standard` and `full` have anyway where the processor counts. Elsewhere it reads the
    /// kernel's counters.
    #[arg(long, conflicts_with = "no_counters")]
    counters: bool,
    /// Leave the counter pass out.
    #[arg(long)]
    no_counters: bool,
    /// Record the name of this host in the manifest. Otherwise nothing in a run names host, user or path.
    #[arg(long)]
    identify: bool,
    /// Threads a sample may have, if fewer than this host allows.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    max_threads: Option<u64>,
    /// Mebibytes a sample may need, if fewer than this host allows.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    max_mem: Option<u64>,
}

/// `perseq run`.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut limits = Limits::read();
    limits.max_threads = limits.max_threads.min(arguments.max_threads.unwrap_or(u64::MAX));
    limits.max_bytes = limits.max_bytes.min(arguments.max_mem.map_or(u64::MAX, |mib| mib << 20));
    let choice = Choice {
        profile: arguments.profile.clone(),
        filter: arguments.filter.clone(),
        modes: arguments.modes.clone(),
        blocks: arguments.blocks,
        measure_ms: arguments.measure_ms,
        seed,
        links_per_ms: (!arguments.dry_run).then(think::calibrate),
        counters: match (hardware_counts(arguments), arguments.counters) {
            (false, false) => Vec::new(),
            (hardware, _) => counters::groups(hardware),
        },
    };
    let definitions = own::or_ours(&arguments.definition)?;
    let plan = plan::make(&definitions, &choice, &limits)?;
    let ratios = plan.iter().any(|planned| planned.task.mode_requested == Rule::baseline(planned.task.fairness));
    if !ratios {
        eprintln!(
            "note: no ratios come of this, since --modes lacks what they are taken to: {BASELINE}, or under rule B {}",
            Rule::baseline(Some(Rule::B))
        );
    }
    if arguments.dry_run {
        let plan = part::taken(arguments.shard, plan)?;
        return print_plan(&plan, seed, arguments.json).map(|()| Exit::Done);
    }

    let run_id = format!("{}-{}", manifest::stamp(), arguments.profile);
    let options = Options {
        filter: arguments.filter.as_ref().map(|filter| filter.as_str().to_owned()),
        modes: arguments.modes.clone(),
        blocks: arguments.blocks,
        measure_ms: arguments.measure_ms,
        max_threads: arguments.max_threads,
        max_mem_mib: arguments.max_mem,
    };
    let used = |id: &str| plan.iter().any(|planned| planned.task.experiment == id);
    let definitions = definitions.into_iter().filter(|definition| used(&definition.id)).collect();
    let mut manifest = experiment::manifest(run_id, &arguments.profile, seed, options, definitions)?;
    manifest.about.links_per_ms = choice.links_per_ms;
    if arguments.identify {
        manifest.about.host_name = crate::host_file::read("/proc/sys/kernel/hostname").value;
    }
    let plan = manifest.cut(arguments.shard, plan)?;
    let archive = Archive::create(arguments.out.as_deref(), &manifest.run_id)?;
    manifest::warn_of_debug_build(&manifest.tool);
    let run = Contents::new(&archive, manifest, plan)?;
    let exit = finish(&archive, run)?;
    if arguments.compress && archive.finished() {
        archive.compress()?;
    }
    Ok(exit)
}

/// E00, for the modes of the plan. A failure stops nothing, but the report will have no headline.
pub fn gate(plan: &[Sample]) -> Vec<Validity> {
    let used = |mode: &Mode| plan.iter().any(|planned| planned.task.mode_requested == Subject::Perseq(*mode));
    say("E00: checking that each mode is what it claims");
    let found: Vec<_> = selftest::checks(Mode::ALL.into_iter().filter(used).collect()).collect();
    for validity in found.iter().filter(|validity| validity.status == Outcome::Failed) {
        eprintln!("E00 failed: {}: {}", validity.check, validity.detail);
    }
    // Said before an hour is spent on it.
    for validity in found.iter().filter(|found| found.check == TWIN_CHECK && found.status == Outcome::Unavailable) {
        say(&format!("E00: {}: {}: nothing may be claimed from this run", validity.check, validity.detail));
    }
    found
}

/// Whether the processor's counters are to be read: in citable profiles, where there are any.
fn hardware_counts(arguments: &Arguments) -> bool {
    let wanted = arguments.counters || (arguments.profile != "quick" && !arguments.no_counters);
    wanted && Pmu::probe().hardware()
}

/// Takes what is missing, E00 included, and writes the report.
pub fn finish(archive: &Archive, mut run: Contents<Experiments>) -> Result<Exit, Failure> {
    if run.manifest.about.validity.is_empty() {
        run.manifest.about.validity = gate(&run.plan);
        archive.write_manifest(&mut run.manifest)?;
    }
    if !conduct::complete(&Experiments, archive, &mut run)? {
        return Ok(Exit::Partial);
    }
    let exit = if run.manifest.about.valid() {
        conduct::verdict(&run.rows)
    } else {
        eprintln!("E00 failed: the report has no headline");
        Exit::Invalid
    };
    let told = report::write(archive, run)?;
    output::print(&told.to_string())?;
    Ok(exit)
}

fn print_plan(plan: &[Sample], seed: u64, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let seconds = place::estimate(plan).as_secs_f64();
        return output::print_json(&serde_json::json!({"seed": seed, "seconds": seconds, "samples": plan}));
    }
    let mut text = String::new();
    for planned in plan {
        let skip = planned.skip.as_ref().map_or_else(String::new, |reason| format!("  skipped: {reason}"));
        text += &format!("{:>5}  {}{skip}\n", planned.order_index, planned.sample_id);
    }
    text += &format!("{} samples, about {:.0} s, seed {seed}\n", plan.len(), place::estimate(plan).as_secs_f64());
    output::print(&text)
}
