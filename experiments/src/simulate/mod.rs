//! `perseq simulate`: the experiments on CPUs and caches that this host does not have.
//!
//! 1. [`packages`]: QEMU and a kernel, as Debian has them, in a folder of the user's cache.
//! 2. [`image`]: the guest's files: this very binary as `/init`, the libraries it needs, and its order.
//! 3. [`emulator`]: the command line that makes a guest deterministic, with the plugin that holds the model of caches
//!    (`cache-plugin/`, `cache-model/`).
//! 4. [`guest`]: what happens inside: the self-test, the workload between two marks, the worker's report.
//! 5. [`scratch`]: the folder of the guest that runs now.
//! 6. [`study`]: all that as a kind of run. Counts stand in the rows; times do not, for a guest's clock counts
//!    instructions.
//! 7. [`patterns`]: the suite's patterns in place of experiments.
//! 8. [`table`]: counts per pair, ratios with their intervals over the seeds, and figures; [`tiers`]: where misses come
//!    from.
//! 9. [`agreement`]: simulated counts beside those of the host's own counters, where it has any.
//!
//! What is not simulated (time, prefetchers and more) is said in `cache-model/src/lib.rs`. CPUs take turns of some ten
//! thousand instructions, so that lines which several write at once move less often than on processors.

mod agreement;
mod emulator;
pub mod guest;
mod image;
mod machine;
mod packages;
mod patterns;
mod scratch;
mod study;
mod table;
mod tiers;

pub use study::Simulation;

use crate::counters;
use crate::counters::probe::{self, Pmu};
use crate::definition::{Definition, Parameters};
use crate::experiment::{self, Experiments, Options, Sample};
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents};
use crate::harness::conduct;
use crate::harness::manifest::{self, Manifest};
use crate::harness::part::{self, Shard};
use crate::harness::place::{self, Planned};
use crate::harness::task::Task;
use crate::host::Host;
use crate::host::limits::Limits;
use crate::output;
use crate::own;
use crate::plan::{self, Choice};
use crate::report;
use crate::subject::Subject;
use crate::suite::arm::{self, Arm};
use crate::workload::{self, think};
use crate::written::Folder;
use machine::Machine;
use regex::Regex;
use std::path::{Path, PathBuf};
use study::{About, Guest, Plugin};

/// Options of `perseq simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq simulate --cpus 8 --geometry zen3 --filter E01 --seeds 2
  perseq simulate --cpus 16 --llc-groups 2 --geometry zen5 --filter 'E03/rule=A' --modes percpu,perthread
  perseq simulate --filter 'E03/rule=A' --preload percpu,perthread,mimalloc2,jemalloc    after `perseq peers`
  perseq simulate --cpus 64 --process-cpus 4 --modes percpu,percpu-mmcid --filter E04
  perseq simulate --filter 'E03/rule=A' --objects   also how long ago a CPU touched what it is handed
  perseq simulate --suite '^(larson|xmalloc)$' --preload percpu,perthread,mimalloc2
  perseq simulate --validate --filter E03           the model beside this host's own counters
  perseq rows DIR --metric l2_misses_per_pair       the counts of each sample

QEMU and a kernel are fetched once, from Debian's archive, into the user's cache; nothing is installed. Counts are those
of a model of caches, not of hardware: the report says `simulated` wherever it says a number.")]
pub struct Arguments {
    /// CPUs of the guest. Default: 8, and with --validate as many as this host allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Groups of CPUs with a last-level cache each. Default: as many as the processor would have.
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u32).range(1..=64))]
    llc_groups: Option<u32>,
    /// CPUs that the measured process may use, the first ones. Default: all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    process_cpus: Option<u32>,
    /// Caches of this processor: zen3, zen5, sapphire-rapids, neoverse-v2, this-host.
    #[arg(long, default_value = "zen3", value_name = "NAME")]
    geometry: String,
    /// Only cells whose id, or experiments whose title, matches.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Simulate the experiment of this file instead of perseq's own, in the cells of its profile `quick`. May be given
    /// several times; experiments/README.md says what stands in it.
    #[arg(long, value_name = "FILE")]
    definition: Vec<PathBuf>,
    /// Simulate the suite's patterns whose name matches instead of experiments, through `malloc`: on --preload, or on
    /// libperseq in --modes. They are measured whole, and counts are for each block allocated or resized.
    #[arg(long, value_name = "REGEX", conflicts_with_all = ["filter", "definition", "objects"])]
    suite: Option<Regex>,
    /// Percent of the work that the suite's standard profile gives a pattern.
    #[arg(long, default_value_t = 1, requires = "suite", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    percent: u64,
    /// Modes to compare.
    #[arg(long, value_delimiter = ',', default_value = "percpu,perthread", value_name = "A,B")]
    modes: Vec<Subject>,
    /// Preload these allocators in place of that, and call each through `malloc`: modes of libperseq, `system`, and what
    /// `perseq peers` built, by name.
    #[arg(long, value_delimiter = ',', value_name = "A,B", conflicts_with = "modes")]
    preload: Vec<String>,
    /// A further allocator to preload: its name, its library, and variables it runs with. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH[,VARIABLE=VALUE]", conflicts_with = "modes")]
    allocators: Vec<String>,
    /// Folder of `perseq peers`. Default: `perseq/peers` in the user's cache, if it is there.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Starts of each cell and mode, each disturbed by its seed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Seed that all others are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Values of the parameter `threads_per_cpu`, in the experiments that vary it, instead of those of the profile `quick`.
    /// With --suite: threads for each CPU, which share its work; default: 1.
    #[arg(long, value_delimiter = ',', value_name = "R,S", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads_per_cpu: Option<Vec<u64>>,
    /// Simulated milliseconds of each sample for each of its threads, 200 at least in all: 125,000 instructions each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    measure_ms: u64,
    /// Also mark each object as it comes and goes: how many lines its CPU touched since it last touched the object's, and
    /// how many CPUs touched that between two owners. Guests take longer, and each pair has two instructions more.
    #[arg(long)]
    objects: bool,
    /// The plugin. Default: `libperseq_cache_plugin.so` beside this program.
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// Directory to create for the run. Default: `runs/TIME-simulation`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take only part K of N of the plan; `perseq merge` joins the parts.
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Compare the model with this host: simulate E01 to E05 with this host's caches, count the same cells with its own
    /// counters, and print how far both agree, for each cell and count. Refuses hosts without such counters.
    #[arg(long, conflicts_with_all = [
        "geometry", "llc_groups", "process_cpus", "definition", "suite", "preload", "allocators", "objects", "shard", "dry_run",
    ])]
    validate: bool,
    /// Print the plan, and stop.
    #[arg(long)]
    dry_run: bool,
}

/// `perseq simulate`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.validate {
        return validate(arguments);
    }
    let cpus = arguments.cpus.unwrap_or(CPUS) as usize;
    let machine = Machine::new(&arguments.geometry, cpus, arguments.llc_groups, arguments.process_cpus)?;
    let limits = limits(&machine);
    let arms = arms(arguments)?;
    let samples = samples(arguments, &definitions(arguments)?, &arms, &limits)?;
    let guests = samples.into_iter().flat_map(|sample| guests(sample, &arms, arguments.objects));
    let plan = place::numbered(guests.collect());
    if arguments.dry_run {
        let plan = part::taken(arguments.shard, plan)?;
        let lines = plan.iter().map(|planned| format!("{:>5}  {}\n", planned.order_index, planned.sample_id));
        let lines: String = lines.collect();
        return output::print(&format!("{lines}{} guests\n", plan.len())).map(|()| Exit::Done);
    }
    let (study, archive, run) = prepare(arguments, machine, arms, plan, arguments.out.as_deref())?;
    finish(&archive, run, &study)
}

/// CPUs of a guest, unless another number is asked for.
const CPUS: u32 = 8;

/// Those of the guest. Its kernel has sequences and concurrency ids.
fn limits(machine: &Machine) -> Limits {
    let mut limits = Limits::read();
    limits.cpus = machine.allowed_cpus() as u64;
    limits.max_threads = 8192;
    limits.max_bytes = emulator::memory_bytes(machine.cpus) / 2; // nothing else runs there
    limits.sequences = crate::known::Known::is(true);
    limits.concurrency_ids = crate::known::Known::is(true);
    limits
}

/// Fetches what guests need, and begins the directory of a run.
fn prepare(
    arguments: &Arguments,
    machine: Machine,
    arms: Vec<Arm>,
    plan: Vec<Planned<Guest>>,
    out: Option<&Path>,
) -> Result<(Simulation, Archive, Contents<Simulation>), Failure> {
    let plugin = Plugin::find(arguments.plugin.as_deref())?;
    let plugin_sha256 = plugin.sum.clone();
    let study = Simulation::prepare(machine.clone(), plugin, arms.clone())?;
    let run_id = format!("{}-simulation", manifest::stamp());
    let about = About {
        machine,
        emulator: study.versions(),
        image_sha256: Some(study.image_sum()?),
        plugin_sha256,
        modes: if arms.is_empty() { arguments.modes.clone() } else { Vec::new() },
        preloaded: arms,
        seeds: arguments.seeds,
    };
    let mut manifest = Manifest::new(Simulation::NAME, run_id, arguments.seed, &Host::read(), about)?;
    let plan = manifest.cut(arguments.shard, plan)?;
    let archive = Archive::create(out, &manifest.run_id)?;
    let run = Contents::new(&archive, manifest, plan)?;
    Ok((study, archive, run))
}

/// The experiments whose counts are compared with the host's: those of them that have a counter pass.
const VALIDATED: [&str; 5] = ["E01", "E02", "E03", "E04", "E05"];

/// Counts the cells on this host and in guests with its caches, and says how far both agree.
fn validate(arguments: &Arguments) -> Result<Exit, Failure> {
    let matches = countable()?;
    let allowed = workload::allowed().map_err(Failure::host)?;
    let cpus = arguments.cpus.map_or(allowed.len().min(64), |cpus| cpus as usize);
    if cpus > allowed.len() {
        let line = format!("--cpus {cpus}: expected at most {}, which this host allows", allowed.len());
        return Err(Failure::usage(line));
    }
    let machine = Machine::new(machine::THIS_HOST, cpus, None, None)?;
    let mut definitions = definitions(arguments)?;
    definitions.retain(|definition| definition.counters && VALIDATED.contains(&definition.id.as_str()));
    let limits = limits(&machine);
    let samples = samples(arguments, &definitions, &[], &limits)?;
    let guests = place::numbered(samples.into_iter().flat_map(|sample| guests(sample, &[], false)).collect());
    let folder = Archive::create(arguments.out.as_deref(), &format!("{}-validation", manifest::stamp()))?;
    let within = |name: &str| folder.root().join(name);

    guest::stay_on(&allowed[..cpus]).map_err(Failure::host)?;
    let choice = Choice {
        links_per_ms: Some(think::calibrate()),
        counters: counters::groups(true),
        ..choice(arguments, arguments.modes.clone())
    };
    let plan = plan::make(&definitions, &choice, &Limits::read())?;
    let plan = place::numbered(plan.into_iter().filter(|sample| sample.task.counter_group.is_some()).collect());
    let run_id = format!("{}-{PROFILE}", manifest::stamp());
    let options = Options {
        filter: arguments.filter.as_ref().map(|filter| filter.as_str().to_owned()),
        modes: Some(arguments.modes.clone()),
        blocks: Some(arguments.seeds),
        ..Options::default()
    };
    let mut manifest = experiment::manifest(run_id, PROFILE, arguments.seed, options, definitions)?;
    let plan = manifest.cut(None, plan)?;
    let archive = Archive::create(Some(&within("counted")), &manifest.run_id)?;
    let mut counted = Contents::new(&archive, manifest, plan)?;
    if !conduct::complete(&Experiments, &archive, &mut counted)? {
        return Ok(Exit::Partial);
    }
    let (study, archive, mut simulated) = prepare(arguments, machine, Vec::new(), guests, Some(&within("simulated")))?;
    if !conduct::complete(&study, &archive, &mut simulated)? {
        return Ok(Exit::Partial);
    }
    again(&archive, &simulated)?;
    let [model, host] = [agreement::simulated(&simulated.rows, &matches), agreement::counted(&counted.rows, &matches)];
    let text = agreement::text(&agreement::compare(&model, &host));
    let path = within("agreement.txt");
    std::fs::write(&path, &text).map_err(|error| Failure::file(&path, "write", error))?;
    output::print(&format!("{text}{}\n", path.display())).map(|()| Exit::Done)
}

/// The counts that can be compared here. The error names the counters that are missing: nothing was fetched yet.
fn countable() -> Result<Vec<&'static agreement::Match>, Failure> {
    let known = counters::this_processor();
    let events = known.as_ref().map_or(&[][..], |known| known.events);
    let refused = probe::refused(events);
    let counts = |found: &&agreement::Match| refused.iter().all(|(name, _)| !found.events.contains(name));
    let matches: Vec<_> = agreement::possible(events).into_iter().filter(counts).collect();
    if Pmu::probe().hardware() && !matches.is_empty() {
        return Ok(matches);
    }
    let names = refused.iter().map(|(name, status)| format!("{name} ({status})")).collect::<Vec<_>>().join(", ");
    let names = if refused.is_empty() { "those of caches".into() } else { names };
    let table = known.map_or("this processor is in no table of cache events; ".to_owned(), |_| String::new());
    Err(Failure::host(format!(
        "--validate: this host counts no cache misses, so there is nothing to compare the model with; {table}missing: {names}"
    )))
}

/// The experiments or patterns, each on the modes and on what stands for all other allocators.
fn samples(
    arguments: &Arguments,
    definitions: &[Definition],
    arms: &[Arm],
    limits: &Limits,
) -> Result<Vec<Sample>, Failure> {
    let subjects = if arms.is_empty() { arguments.modes.clone() } else { subjects(arms) };
    if let Some(filter) = &arguments.suite {
        let threads_per_cpu = arguments.threads_per_cpu.as_deref().unwrap_or(&[1]);
        let (percent, starts, seed) = (arguments.percent, arguments.seeds, arguments.seed);
        return patterns::samples(
            filter,
            &subjects,
            &patterns::Amount { threads_per_cpu, percent, starts, seed },
            limits,
        );
    }
    let plan = plan::make(definitions, &choice(arguments, subjects), limits)?;
    // The same start twice would give the same bits twice, and nothing is planted where no time is measured.
    let plain = plan.into_iter().filter(|planned| !planned.twin && planned.task.plain());
    let long = |mut sample: Sample| {
        let threads = threads(&sample.task.params, limits.cpus);
        sample.task.params.insert("measure_ms".into(), (arguments.measure_ms * threads).max(LEAST_MS));
        // Each is in a guest of its own, whose kernel draws the same addresses from the same start.
        (sample.task.turns, sample.task.addresses) = (None, None);
        sample
    };
    Ok(plain.map(long).collect())
}

/// What is planned of the experiments.
fn choice(arguments: &Arguments, modes: Vec<Subject>) -> Choice {
    Choice {
        profile: PROFILE.into(),
        filter: arguments.filter.clone(),
        modes: Some(modes),
        blocks: Some(arguments.seeds),
        measure_ms: None,
        seed: arguments.seed,
        links_per_ms: Some(emulator::LINKS_PER_MS),
        counters: Vec::new(),
    }
}

/// The profile whose cells are simulated.
const PROFILE: &str = "quick";

/// Measured milliseconds of a sample, at least.
const LEAST_MS: u64 = 200;

/// Threads of a sample: what is measured grows with them, so that each has its turns.
fn threads(parameters: &Parameters, cpus: u64) -> u64 {
    let of = |name| parameters.get(name).copied();
    of("threads").or_else(|| of("threads_per_cpu").map(|threads| threads * cpus)).unwrap_or(1).max(1)
}

/// The definitions, with other numbers of threads where they vary.
fn definitions(arguments: &Arguments) -> Result<Vec<Definition>, Failure> {
    let mut definitions = own::or_ours(&arguments.definition)?;
    let cells = definitions.iter_mut().filter_map(|definition| definition.profiles.get_mut(PROFILE));
    for threads in cells.filter_map(|cells| cells.vary.get_mut("threads_per_cpu")) {
        arguments.threads_per_cpu.iter().for_each(|wanted| threads.clone_from(wanted));
    }
    Ok(definitions)
}

/// The allocators to preload, each seen to be active in a process of this host.
fn arms(arguments: &Arguments) -> Result<Vec<Arm>, Failure> {
    let named = arguments.allocators.iter().filter_map(|text| text.split_once('=')).map(|(name, _)| name.to_owned());
    let mut names: Vec<_> = arguments.preload.iter().cloned().chain(named).collect();
    if names.is_empty() && arguments.suite.is_some() {
        names.extend(arguments.modes.iter().map(|mode| mode.name().to_owned()));
    }
    if names.is_empty() && arguments.allocators.is_empty() {
        return Ok(Vec::new());
    }
    arm::all(&arm::Choice {
        allocators: &arguments.allocators,
        peers: arguments.peers.as_deref(),
        libperseq: arguments.libperseq.as_deref(),
        only: Some(&names),
    })
}

/// What the plan has in place of allocators: modes of perseq under their names, and one that stands for all others.
fn subjects(arms: &[Arm]) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for subject in arms.iter().map(|arm| mode(arm).unwrap_or(Subject::System)) {
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}

fn mode(arm: &Arm) -> Option<Subject> {
    arm.mode.as_deref().and_then(Subject::from_name)
}

/// A sample of an experiment in a guest, or in one for each allocator that it stands for.
fn guests(sample: Sample, arms: &[Arm], objects: bool) -> Vec<Planned<Guest>> {
    let subject = sample.task.mode_requested;
    let own = |arm: &&Arm| mode(arm).unwrap_or(Subject::System) == subject;
    let names: Vec<_> = arms.iter().filter(own).map(|arm| Some(arm.name.clone())).collect();
    let names = if arms.is_empty() { vec![None] } else { names };
    let guest = |preloaded: Option<String>| {
        let task = Guest { question: sample.task.clone(), preloaded, objects };
        Planned {
            sample_id: place::name(&sample.cell_id, sample.block, task.subject(), false),
            cell_id: sample.cell_id.clone(),
            twin: false,
            block: sample.block,
            order_index: sample.order_index,
            invocation_seed: sample.invocation_seed,
            env_pad: 0, // its environment is what the kernel's command line says
            skip: sample.skip.clone(),
            task,
        }
    };
    names.into_iter().map(guest).collect()
}

/// Takes what is missing and writes the report.
fn finish(archive: &Archive, mut run: Contents<Simulation>, study: &Simulation) -> Result<Exit, Failure> {
    if !conduct::complete(study, archive, &mut run)? {
        return Ok(Exit::Partial);
    }
    let exit = conduct::verdict(&run.rows);
    again(archive, &run).map(|_| exit)
}

/// Completes a run that was interrupted, with the same plugin, allocators, emulator and kernel. Nothing is fetched for
/// another plugin.
pub fn resume(archive: &Archive, plugin: Option<&Path>, choice: &arm::Choice) -> Result<Exit, Failure> {
    let run = conduct::reopen::<Simulation>(archive)?;
    let about = &run.manifest.about;
    let plugin = Plugin::find(plugin)?;
    if plugin.sum != about.plugin_sha256 {
        let (used, found) = (&about.plugin_sha256, &plugin.sum);
        let line = format!("resume: this run was made with another plugin, of SHA-256 {used}; found {found}");
        return Err(Failure::usage(line));
    }
    let recorded = &about.preloaded;
    let arms = if recorded.is_empty() { Vec::new() } else { arm::again(recorded, choice)? };
    let study = Simulation::prepare(about.machine.clone(), plugin, arms)?;
    if study.versions() != about.emulator {
        let (used, found) = (&about.emulator, study.versions());
        return Err(Failure::usage(format!("resume: this run was made with {used}; found {found}")));
    }
    if let Some(used) = &about.image_sha256
        && *used != study.image_sum()?
    {
        return Err(Failure::usage("resume: the libraries that guests need are not those that this run was made with"));
    }
    finish(archive, run, &study)
}

/// The report again, from the rows.
pub fn again(archive: &Archive, run: &Contents<Simulation>) -> Result<Exit, Failure> {
    run.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let folder = Folder::create(archive.root().join("report"), run.origin())?;
    let text = table::text(run);
    folder.save("report.txt", &text)?;
    let page = report::pages(&folder, &table::document(run)?)?;
    output::print(&format!("{text}\n{}\n", page.display())).map(|()| Exit::Done)
}
