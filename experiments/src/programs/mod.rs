//! Real programs on libperseq, in every mode: do they say what they say on the C library's malloc, and at what cost?
//!
//! Each program has a script in `experiments/programs/` that does real work and prints only what must not depend on
//! the allocator. The script runs in an empty folder, first on the C library, then preloaded. What differs, and what was
//! said while it failed, is kept; `samples.jsonl` gets a row after each run, `table.txt` is what is printed in the end.
//! Nothing is installed unless asked for.

mod catalogue;
mod study;
mod table;

pub use study::{Programs, Run};

use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents, Reading};
use crate::harness::manifest::{self, Manifest};
use crate::harness::part::Shard;
use crate::harness::place::{self, Planned};
use crate::harness::row::Status;
use crate::harness::study::Study;
use crate::harness::{conduct, row};
use crate::host::Host;
use crate::output;
use crate::report::document::Block;
use crate::report::parts::{self, Compared};
use crate::suite::{self, Arm, arm};
use crate::written::{self, Folder};
use catalogue::{PROGRAMS, Program};
use perseq::Mode;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use study::{About, Report, Row, Trial};

/// Options of `perseq programs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq programs --list
  perseq programs --only git,python --modes percpu
  perseq programs --rounds 10           with intervals
  perseq programs --rounds 10 --out SUITE/programs && perseq report SUITE
                                        as a part of the report of a run of the suite")]
pub struct Arguments {
    /// Only these programs.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    only: Option<Vec<String>>,
    /// Only these modes, or `none`.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<String>>,
    /// A further allocator: its name, the library to preload, and variables it runs with. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH[,VARIABLE=VALUE]")]
    allocators: Vec<String>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Rounds of each program, in shuffled order. Ten or more give intervals.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Take only part K of N of the plan; `perseq merge` joins the parts.
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Install what is missing, by apt-get.
    #[arg(long)]
    install: bool,
    /// Print the programs and what is missing, and stop.
    #[arg(long)]
    list: bool,
    /// Directory to create for rows and for what failed. Default: `runs/TIME-programs`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make the table of this run again from its rows, and stop.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// With --report: read files that were changed as well, and mark what is made of them.
    #[arg(long, requires = "report")]
    accept_changed: bool,
}

/// `perseq programs`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(root) = &arguments.report {
        let archive = Archive::open(root)?;
        let run = archive.read::<Programs>(Reading::accepting(arguments.accept_changed))?;
        return again(&archive, &run);
    }
    let only = arguments.only.as_deref();
    if let Some(unknown) = only.into_iter().flatten().find(|name| catalogue::find(name).is_none()) {
        let known: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        return Err(Failure::usage(format!("no program `{unknown}`; expected one of {}", known.join(", "))));
    }
    let chosen: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| only.is_none_or(|only| only.iter().any(|name| name == program.name)))
        .collect();
    if arguments.install {
        install(&chosen)?;
    }
    if arguments.list {
        return output::print(&chosen.iter().map(|program| program.line()).collect::<String>()).map(|()| Exit::Done);
    }
    let arms = arms(arguments)?;
    let seed = arguments.rounds;
    let plan = plan(&chosen, &arms, arguments.rounds, seed);
    let run_id = format!("{}-programs", manifest::stamp());
    let about = About {
        rounds: arguments.rounds,
        programs: chosen.iter().map(|program| program.name.to_owned()).collect(),
        allocators: arms.clone(),
    };
    let mut manifest = Manifest::new(Programs::KIND, run_id, seed, &Host::read(), about)?;
    manifest.environment = "the caller's: real programs need their own".into();
    let plan = manifest.cut(arguments.shard, plan)?;
    let archive = Archive::create(arguments.out.as_deref(), &manifest.run_id)?;
    let run = Contents::new(&archive, manifest, plan)?;
    let exit = finish(&archive, run, arms)?;
    // Programs that were asked for by name and are not here.
    Ok(if exit == Exit::Host && only.is_none() { Exit::Done } else { exit })
}

/// Takes what is missing and prints the table. [`Exit::Host`]: a program is not here.
pub fn finish(archive: &Archive, mut run: Run, arms: Vec<Arm>) -> Result<Exit, Failure> {
    let root = archive.root().canonicalize().map_err(|error| Failure::file(archive.root(), "open", error))?;
    let programs = Programs { root: root.clone(), arms };
    programs.ask(&run.plan)?;
    if !conduct::complete(&programs, archive, &mut run)? {
        return Ok(Exit::Partial);
    }
    write(archive, &run)?;
    let exceeded = PROGRAMS.iter().any(|program| table::exceeded(program, &run.rows).is_some());
    if exceeded || run.rows.iter().any(|row| matches!(row.status, Status::Failed | Status::Timeout)) {
        eprintln!("what the failed ones said is in {}", root.display());
        return Ok(Exit::Invalid);
    }
    Ok(if row::count(&run.rows, Status::Skipped) > 0 { Exit::Host } else { Exit::Done })
}

/// The allocators that a run recorded.
pub fn resumed(run: &Run, choice: &arm::Choice) -> Result<Vec<Arm>, Failure> {
    arm::again(&run.manifest.about.allocators, choice)
}

/// The table again, from the rows.
pub fn again(archive: &Archive, run: &Run) -> Result<Exit, Failure> {
    write(archive, run).map(|()| Exit::Done)
}

/// The table, as a part of another report.
pub fn section(run: &Run) -> Vec<Block> {
    let mut blocks = vec![Block::Heading(2, "Whole programs".into())];
    blocks.extend(run.changed.iter().map(|changed| Block::Notice(written::banner(changed))));
    blocks.push(Block::Paragraph(format!("{} {}", run.manifest.host_caption, run.origin().line())));
    blocks.extend(parts::notice(&run.manifest).map(Block::Notice));
    blocks.extend(table::blocks(&run.rows, &run.manifest.about));
    blocks.extend(compared(run, parts::blocks));
    blocks
}

/// What is told of parts, by the time that programs take.
fn compared<T>(run: &Run, told: impl Fn(&Manifest<About>, &Compared<Trial, Report>) -> T) -> T {
    let time = |row: &Row| row.counts().map(|report| report.wall_ns as f64);
    let baseline = |_: &[&Row]| suite::SYSTEM.to_owned();
    told(&run.manifest, &Compared { rows: &run.rows, value: &time, baseline: &baseline })
}

fn write(archive: &Archive, run: &Run) -> Result<(), Failure> {
    run.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    // Comments, as the heading is.
    let parts = compared(run, parts::text).lines().map(|line| format!("# {line}\n")).collect::<String>();
    let text = table::heading(&run.manifest) + &parts + &table::table(&run.rows, &run.manifest.about);
    Folder::create(archive.root().to_owned(), run.origin())?.save("table.txt", &text)?;
    output::print(&run.origin().mark("table.txt", &text))
}

/// Every round of every program on each arm, the C library first: what is printed there is what is expected.
fn plan(chosen: &[&Program], arms: &[Arm], rounds: u64, seed: u64) -> Vec<Planned<Trial>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut plan = Vec::new();
    for program in chosen {
        let skip = program.missing();
        for block in 0..rounds {
            let mut order: Vec<_> = arms.iter().collect();
            if block > 0 {
                order.shuffle(&mut random);
            }
            plan.extend(order.into_iter().map(|arm| Planned {
                sample_id: place::name(program.name, block, &arm.name, false),
                cell_id: program.name.into(),
                twin: false,
                block,
                order_index: 0,
                invocation_seed: 0,
                env_pad: 0,
                skip: skip.clone(),
                task: Trial { allocator: arm.name.clone() },
            }));
        }
    }
    place::numbered(plan)
}

/// The C library, libperseq in its modes, and what was given.
fn arms(arguments: &Arguments) -> Result<Vec<Arm>, Failure> {
    let modes: Vec<String> =
        arguments.modes.clone().unwrap_or_else(|| Mode::ALL.iter().map(|mode| mode.name().to_owned()).collect());
    let modes: Vec<_> = modes.into_iter().filter(|name| name != "none").collect();
    if let Some(unknown) = modes.iter().find(|name| Mode::from_name(name).is_none()) {
        return Err(Failure::usage(format!("--modes {unknown}: no such mode")));
    }
    suite::chosen(&arguments.allocators, arguments.libperseq.as_deref(), &modes)
}

/// Installs the Debian packages that are missing.
fn install(chosen: &[&Program]) -> Result<(), Failure> {
    let mut packages: Vec<_> =
        chosen.iter().filter(|program| program.missing().is_some()).flat_map(|program| program.packages).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // What it prints is not our result.
    let status = command.stdout(Stdio::from(std::io::stderr())).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::host(format!("apt-get install: {status}; `apt-get update` may help, or root"))),
        Err(error) => Err(Failure::host(format!("apt-get: {error}; --install needs Debian"))),
    }
}
