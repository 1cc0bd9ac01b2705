//! `perseq torture`: storms over the heap, for a minute or a night, on anyone's machine.
//!
//! ```text
//! storm × mode × door ──► one process: a team of threads, the forces of the storm ──► one line, ok or what was lost
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `storm.rs` | the storms: which forces act together |
//! | `forces/` | the forces, a file for each kind: CPUs, scheduling, signals, processes, threads, loading, limits, ... |
//! | `force.rs` | what a force is, and what it shares with the team |
//! | `team.rs`, `holder.rs` | the threads that allocate, check, resize, free and send |
//! | `object.rs`, `live.rs` | blocks that know their contents; the map of live addresses |
//! | `heap.rs` | the heap under test, and the faults that may be planted |
//! | `run.rs` | a process for each storm, its time limit, its verdict |
//! | `order.rs`, `worker.rs` | what that process is asked, and what it does |
//! | `subject.rs` | doors and modes |
//!
//! A loss ends its process at once, with one line that says what was lost; the torture then ends with exit code 1 and
//! prints the command that repeats it. The seed repeats every choice of every thread, but not how the kernel
//! interleaves them: a rare loss may need several tries.

mod fault;
mod force;
pub mod forces;
mod heap;
mod holder;
mod live;
mod object;
mod order;
mod random;
mod run;
mod storm;
mod subject;
mod team;
pub mod worker;

use crate::beside::{LIBPERSEQ, STORM_PLUGIN};
use crate::failure::{Exit, Failure};
use crate::output;
use heap::Plant;
use run::{Runner, Verdict};
use std::path::PathBuf;
use storm::{STORMS, Storm};
use subject::{NO_MODE, Subject};

/// Options of `perseq torture`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq torture                                   every storm, mode and door: several minutes
  perseq torture --list                            the storms
  perseq torture --storms forks,moves --modes percpu,hardened --seconds 10
  perseq torture --seconds 20 --rounds 100         a night, each round with another seed
  perseq torture --through system                  the C library's malloc: do the storms themselves hold?
  sudo perseq torture --storms hotplug             takes a CPU of this machine away, again and again

Through the door `crate` the heap is perseq as linked into this program; through `libperseq` it is whatever this process
allocates, the standard library's and the C library's own blocks among it.")]
pub struct Arguments {
    /// Seconds of each storm.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Seed of every choice. Default: drawn, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these storms.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    storms: Option<Vec<String>>,
    /// Only these modes; `hardened` is one of them here.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<String>>,
    /// Doors to the heap: `crate`, `libperseq`, `system`, or the path of a library to preload. Default: `crate`, and
    /// `libperseq` where libperseq.so is beside this program.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    through: Option<Vec<String>>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// A plugin on perseq. Default: `libperseq_plugin.so` beside this program.
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// Threads that allocate. Default: 8 for each CPU, 64 at most.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=1024))]
    threads: Option<u64>,
    /// Times to run it all, each with another seed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Seconds after its end at which a storm counts as hung. The stacks are printed, where gdb is installed.
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    patience: f64,
    /// Fail if a storm cannot be had here, instead of saying why.
    #[arg(long)]
    require: bool,
    /// Go on after a loss; the exit code stays 1.
    #[arg(long)]
    keep_going: bool,
    /// Run the storms that change the whole machine too. A storm that is named with --storms runs anyway.
    #[arg(long)]
    whole_machine: bool,
    /// Print the storms and stop.
    #[arg(long)]
    list: bool,
    /// Plant a fault between the heap and the storm.
    #[arg(long, hide = true, value_enum)]
    plant: Option<Plant>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=1e6).contains(&value) => Ok(value),
        _ => Err("expected seconds, 0.01 to 1000000".into()),
    }
}

/// `perseq torture`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.list {
        let line = |storm: &Storm| format!("{:12} {}\n", storm.name, storm.what);
        return output::print(&STORMS.iter().map(line).collect::<String>()).map(|()| Exit::Done);
    }
    let storms = storms(arguments.storms.as_deref())?;
    let libperseq = LIBPERSEQ.look(arguments.libperseq.as_deref())?;
    let plugin = STORM_PLUGIN.look(arguments.plugin.as_deref())?;
    let subjects = subject::all(arguments.through.as_deref(), arguments.modes.as_deref(), libperseq.as_deref())?;
    let runner = Runner::new(arguments.seconds, arguments.patience, arguments.plant, libperseq, plugin)?;
    let cpus = force::allowed_cpus().len();
    let threads = arguments.threads.map_or(8 * cpus.clamp(1, 8), |threads| threads as usize);
    let first = arguments.seed.unwrap_or_else(rand::random);
    let (mut lost, mut absent) = (0, 0);
    for round in 0..arguments.rounds {
        let seed = first.wrapping_add(round);
        output::print(&heading(seed, threads, cpus))?;
        for storm in &storms {
            for subject in &subjects {
                if storm.whole_machine && !arguments.whole_machine && arguments.storms.is_none() {
                    if subject.mode == subjects[0].mode && subject.through == subjects[0].through {
                        let why = "not run: it changes the whole machine; --whole-machine or its name runs it";
                        output::print(&format!("{:12} {:16} {:10} {why}\n", storm.name, "", ""))?;
                    }
                    continue;
                }
                let verdict = runner.run(storm, subject, threads, seed)?;
                output::print(&verdict.line(storm, subject, arguments.seconds))?;
                match verdict {
                    Verdict::Interrupted => return Ok(Exit::Partial),
                    Verdict::Absent(_) => absent += 1,
                    Verdict::Over { .. } => {}
                    Verdict::Lost { .. } => {
                        lost += 1;
                        output::print(&repeat(arguments, storm, subject, threads, seed))?;
                        if !arguments.keep_going {
                            return Ok(Exit::Invalid);
                        }
                    }
                }
            }
        }
    }
    output::print(&format!("{lost} lost, {absent} not to be had here\n"))?;
    Ok(match (lost, absent > 0 && arguments.require) {
        (0, false) => Exit::Done,
        (0, true) => Exit::Host,
        _ => Exit::Invalid,
    })
}

fn heading(seed: u64, threads: usize, cpus: usize) -> String {
    let columns = ["storm", "mode", "through", "seconds", "operations"];
    format!(
        "seed {seed}, {threads} threads on {cpus} CPUs\n{:12} {:16} {:10} {:>7} {:>12} verdict\n",
        columns[0], columns[1], columns[2], columns[3], columns[4]
    )
}

/// The command that does the same once more.
fn repeat(arguments: &Arguments, storm: &Storm, subject: &Subject, threads: usize, seed: u64) -> String {
    let mut command = format!("perseq torture --storms {} --through {}", storm.name, subject.through);
    if subject.mode != NO_MODE {
        command += &format!(" --modes {}", subject.mode);
    }
    command += &format!(" --threads {threads} --seconds {} --seed {seed}", arguments.seconds);
    format!("repeat it: {command} --rounds 20\n")
}

fn storms(wanted: Option<&[String]>) -> Result<Vec<&'static Storm>, Failure> {
    let Some(wanted) = wanted else { return Ok(STORMS.iter().collect()) };
    let find = |name: &String| {
        Storm::find(name).ok_or_else(|| {
            let known: Vec<_> = STORMS.iter().map(|storm| storm.name).collect();
            Failure::usage(format!("--storms {name}: expected some of {}", known.join(", ")))
        })
    };
    wanted.iter().map(find).collect()
}
