//! Runs a plan, sample by sample, and resumes one that was interrupted.

use crate::archive::Archive;
use crate::counters::{self, probe::Pmu};
use crate::definition;
use crate::failure::{Exit, Failure};
use crate::gate::NOISY_SHARE;
use crate::host::limits::Limits;
use crate::manifest::{self, Manifest, Options, Tool};
use crate::output;
use crate::plan::{self, Choice, Planned};
use crate::progress::Progress;
use crate::report;
use crate::sample::{self, Row, Status};
use crate::selftest;
use crate::subject::Subject;
use crate::validity::{Outcome, Validity};
use perseq::Mode;
use regex::Regex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq run                                          the profile quick
  perseq run --profile standard --seed 1              the citable one; the same seed gives the same plan
  perseq run --filter 'E03/rule=B' --blocks 10        one question, answered well
  perseq run --modes percpu,percpu-lock --filter E01  other modes
  perseq run --profile full --dry-run --json          the plan, and nothing else

Ctrl-C leaves a directory that `perseq resume` completes.")]
pub struct Arguments {
    /// How much to measure: `quick` is a smoke test, `standard` may be cited, `full` takes hours.
    #[arg(long, default_value = "quick", value_parser = ["quick", "standard", "full"])]
    profile: String,
    /// Run only cells whose id or experiment's title matches, for instance `E03/rule=B`.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Measure these modes instead of the profile's.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<Subject>>,
    /// Seed of every random choice. Default: drawn, and recorded.
    #[arg(long)]
    seed: Option<u64>,
    /// Blocks per cell instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    blocks: Option<u64>,
    /// Measured milliseconds per sample instead of the profile's.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    measure_ms: Option<u64>,
    /// Directory to create for the run. Default: `runs/TIME-PROFILE`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
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
    #[arg(long)]
    max_threads: Option<u64>,
    /// Mebibytes a sample may need, if fewer than this host allows.
    #[arg(long, value_name = "MIB")]
    max_mem: Option<u64>,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

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
        counters: match (hardware_counts(arguments), arguments.counters) {
            (false, false) => Vec::new(),
            (hardware, _) => counters::groups(hardware),
        },
    };
    let definitions = definition::all();
    let plan = plan::make(&definitions, &choice, &limits)?;
    if arguments.dry_run {
        return print_plan(&plan, seed, arguments.json).map(|()| Exit::Done);
    }

    let run_id = format!("{}-{}", manifest::stamp(), arguments.profile);
    let root = arguments.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&run_id));
    let archive = Archive::create(&root)?;
    let options = Options {
        filter: arguments.filter.as_ref().map(|filter| filter.as_str().to_owned()),
        modes: arguments.modes.clone(),
        blocks: arguments.blocks,
        measure_ms: arguments.measure_ms,
        max_threads: arguments.max_threads,
        max_mem_mib: arguments.max_mem,
    };
    let used = |id: &str| plan.iter().any(|planned| planned.experiment == id);
    let definitions = definitions.into_iter().filter(|definition| used(&definition.id)).collect();
    let mut manifest = Manifest::new(run_id, arguments.profile.clone(), seed, options, definitions)?;
    if arguments.identify {
        manifest.host_name = crate::host_file::read("/proc/sys/kernel/hostname").value;
    }
    archive.write_plan(&plan)?;
    archive.write_manifest(&manifest)?;
    if manifest.tool.debug_assertions {
        eprintln!("warning: a debug build; its times are worth nothing");
    }
    manifest.validity = gate(&plan);
    archive.write_manifest(&manifest)?;
    complete(&archive, manifest, &plan, Vec::new())
}

/// E00, for the modes of the plan. A failure stops nothing, but the report will have no headline.
fn gate(plan: &[Planned]) -> Vec<Validity> {
    let used = |mode: &Mode| plan.iter().any(|planned| planned.mode_requested == Subject::Perseq(*mode));
    eprintln!("E00: checking that each mode is what it claims");
    let found: Vec<_> = selftest::checks(Mode::ALL.into_iter().filter(used).collect()).collect();
    for validity in found.iter().filter(|validity| validity.status == Outcome::Failed) {
        eprintln!("E00 failed: {}: {}", validity.check, validity.detail);
    }
    found
}

/// Whether the processor's counters are to be read: in citable profiles, where there are any.
fn hardware_counts(arguments: &Arguments) -> bool {
    let wanted = arguments.counters || (arguments.profile != "quick" && !arguments.no_counters);
    wanted && Pmu::probe().hardware()
}

/// `perseq resume`.
pub fn resume(root: &Path) -> Result<Exit, Failure> {
    let archive = Archive::open(root)?;
    let (mut manifest, plan) = (archive.manifest()?, archive.plan()?);
    if Tool::this()?.binary_sha256 != manifest.tool.binary_sha256 {
        return Err(Failure::usage("resume: this run was made by another build of perseq; expected the same binary"));
    }
    if crate::host::Host::read().caption() != manifest.host_caption {
        return Err(Failure::usage(format!("resume: this run was made on another host: {}", manifest.host_caption)));
    }
    if manifest.validity.is_empty() {
        manifest.validity = gate(&plan);
        archive.write_manifest(&manifest)?;
    }
    let before = if archive.root().join("samples.jsonl").exists() {
        let rows = archive.rows()?;
        rows.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
        rows.rows
    } else {
        Vec::new()
    };
    complete(&archive, manifest, &plan, before)
}

/// Takes every planned sample that `rows` do not settle, then writes the report.
fn complete(archive: &Archive, mut manifest: Manifest, plan: &[Planned], mut rows: Vec<Row>) -> Result<Exit, Failure> {
    // A file that may not grow is an error to report, not a signal to die of.
    // SAFETY: ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }
        .map_err(|error| Failure::host(format!("cannot ignore SIGXFSZ: {error}")))?;
    let handler = || {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(Exit::Partial as i32);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::host(format!("cannot handle Ctrl-C: {error}")))?;

    let mut attempts: BTreeMap<String, (u32, bool)> = BTreeMap::new();
    for row in &rows {
        attempts.insert(row.planned.sample_id.clone(), (row.attempt, row.settled()));
    }
    let open = |planned: &&Planned| !attempts.get(&planned.sample_id).is_some_and(|(_, settled)| *settled);
    let remaining: Vec<_> = plan.iter().filter(open).collect();
    let may_repeat = (plan.len() as f64 * NOISY_SHARE).ceil() as usize;
    let mut repeated = rows.iter().filter(|row| row.status == Status::Rejected).count();

    let mut appender = archive.appender()?;
    let progress = Progress::new(plan.len(), &remaining);
    for planned in remaining {
        if INTERRUPTED.load(Relaxed) {
            progress.end();
            eprintln!("interrupted; `perseq resume {}` takes the rest", archive.root().display());
            return Ok(Exit::Partial);
        }
        let rejected_before = attempts.contains_key(&planned.sample_id);
        // Beyond the budget of repetitions the first attempt counts as a second: kept, with a warning.
        let first = if rejected_before || repeated >= may_repeat { 2 } else { 1 };
        for attempt in first..=2 {
            let row = sample::take(&manifest.run_id, planned, attempt);
            appender.append(&row)?;
            progress.line(&row);
            let settled = row.settled();
            rows.push(row);
            if settled {
                break;
            }
            repeated += 1;
        }
        progress.step(planned);
    }
    progress.end();
    if manifest.finished_utc.is_none() {
        manifest.finished_utc = Some(manifest::now());
        archive.write_manifest(&manifest)?;
    }
    archive.write_sums()?;
    let path = report::write(archive)?;
    let exit = verdict(&rows, &manifest);
    output::print(&format!("{}\n", path.display()))?;
    Ok(exit)
}

/// The exit code of a plan that is complete.
fn verdict(rows: &[Row], manifest: &Manifest) -> Exit {
    let count = |status| rows.iter().filter(|row| row.status == status).count();
    let (failed, timeout) = (count(Status::Failed), count(Status::Timeout));
    if !manifest.valid() {
        eprintln!("E00 failed: the report has no headline");
        Exit::Invalid
    } else if failed > 0 {
        eprintln!("{failed} samples failed; the report names each with its reason");
        Exit::Invalid
    } else if timeout > 0 {
        eprintln!("{timeout} samples did not end in time; the report names each");
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn print_plan(plan: &[Planned], seed: u64, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let seconds = plan::estimate(plan).as_secs_f64();
        return output::print_json(&serde_json::json!({"seed": seed, "seconds": seconds, "samples": plan}));
    }
    let mut text = String::new();
    for planned in plan {
        let skip = planned.skip.as_ref().map_or_else(String::new, |reason| format!("  skipped: {reason}"));
        text += &format!("{:>5}  {}{skip}\n", planned.order_index, planned.sample_id);
    }
    text += &format!("{} samples, about {:.0} s, seed {seed}\n", plan.len(), plan::estimate(plan).as_secs_f64());
    output::print(&text)
}
