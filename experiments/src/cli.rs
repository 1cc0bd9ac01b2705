//! The command line.

use crate::failure::{Exit, Failure};
use crate::harness::progress;
use crate::output;
use crate::traces::Action;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use regex::Regex;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Which cache is better, one per CPU or one per thread? Measured on one allocator.
#[derive(Debug, Parser)]
#[command(name = "perseq", version, about, after_help = AFTER)]
pub struct Cli {
    /// Show no progress. What went wrong is still said, and so are results.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line of this process. One that is wrong ends it.
pub fn parse() -> Cli {
    let mut command = Cli::command();
    let matches = command.get_matches_mut();
    if let Some((option, value)) = twice(&command, &matches) {
        let line = format!("`--{option}`: `{value}` stands in the list twice");
        command.error(ErrorKind::ValueValidation, line).exit();
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if cli.quiet {
        progress::silence();
    }
    cli
}

/// What a list names twice, whichever command it belongs to.
fn twice(command: &clap::Command, matches: &ArgMatches) -> Option<(String, String)> {
    for list in command.get_arguments().filter(|argument| argument.get_value_delimiter().is_some()) {
        let mut seen = BTreeSet::new();
        let values = matches.get_raw(list.get_id().as_str()).into_iter().flatten();
        let again = values.map(|value| value.to_string_lossy()).find(|value| !seen.insert(value.clone()));
        if let Some(value) = again {
            return Some((list.get_long().unwrap_or_default().to_owned(), value.into_owned()));
        }
    }
    let (name, matches) = matches.subcommand()?;
    twice(command.find_subcommand(name)?, matches)
}

/// The commands that are for users.
fn public() -> clap::Command {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned();
    clap::Command::default().name("perseq").args(command.get_arguments().cloned()).subcommands(shown)
}

const AFTER: &str = "\
Examples:
  perseq doctor                                 what can this host measure?
  perseq run                                    the comparison, about 5 minutes; ends with what came out and a report
  perseq run --profile standard --dry-run       what the citable run would do, and how long it would take
  perseq resume runs/TIME-standard              take what an interrupted run left out
  perseq compare BEFORE AFTER                   what changed
  perseq merge PART...                          parts of a plan, taken with --shard on several hosts, to one run
  perseq top PID                                the allocator of a running process
  perseq profile -- PROGRAM                     which functions of a program allocate what
  perseq COMMAND --help                         more examples

Exit codes:
  0  everything asked for was done
  1  a check failed, a sample failed, or compare found a regression: the numbers must not be believed, or are worse
  2  the command line or an input file is wrong
  3  this host cannot do it: no rseq, no space, no permission
  4  some of it is missing; `perseq resume` takes the rest
That of `perseq profile` is the program's.

Environment:
  NO_COLOR  no colour in messages of the command line; nothing else is ever coloured";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this host can measure, and what not and why.
    #[command(
        after_help = "Examples:\n  perseq doctor\n  sudo perseq doctor --deep           also every raw counter, and the kernel's count of aborts\n  perseq doctor --json | jq .pmu"
    )]
    Doctor {
        /// Ask more: every raw counter of this processor, and the kernel's own count of aborts. Some needs root.
        #[arg(long)]
        deep: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that every mode is what it claims, that sequences are atomic here, and that known answers come out.
    #[command(
        after_help = "Examples:\n  perseq selftest\n  perseq selftest --json | jq '.[] | select(.status != \"ok\")'"
    )]
    Selftest {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the experiments, their cells and the time each profile takes.
    #[command(after_help = "Examples:\n  perseq list --filter E04\n  perseq list --json | jq -r '.[].id'")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Only experiments whose id or title matches.
        #[arg(long, value_name = "REGEX")]
        filter: Option<Regex>,
        /// The experiment of this file instead of perseq's own. May be given several times.
        #[arg(long, value_name = "FILE")]
        definition: Vec<PathBuf>,
    },
    /// Run experiments and write the report.
    Run(crate::run::Arguments),
    /// Take the samples that an interrupted run left out, and write the report.
    Resume(crate::directory::Resume),
    /// Build the report again from the raw rows alone.
    #[command(
        after_help = "Examples:\n  perseq report runs/20261121T040559Z-standard\n  cd runs/20261121T040559Z-standard && sha256sum -c SHA256SUMS && perseq report ."
    )]
    Report {
        /// Directory of the run.
        dir: PathBuf,
        /// Read files that were changed as well, and mark everything that is made of them.
        #[arg(long)]
        accept_changed: bool,
    },
    /// Compress the plan and the rows of a finished run, in parts that are small enough to be kept beside a source.
    #[command(after_help = "Examples:\n  perseq pack runs/20261121T040559Z-standard")]
    Pack {
        /// Directory of the run.
        dir: PathBuf,
    },
    /// Join the parts of a plan, taken with --shard, to one run.
    Merge(crate::merge::Arguments),
    /// Print the raw rows behind a number of the report.
    Rows(crate::rows::Arguments),
    /// Say what changed from one run to another, and refuse what cannot be compared.
    Compare(crate::compare::Arguments),
    /// Record, check and replay what a program allocates.
    #[command(after_help = "\
Examples:
  perseq trace record --out ls.trace -- ls -l /usr
  perseq trace record --out all.trace.gz --keep raw -- make
  perseq trace import raw/recording.4711 one.trace   of one process, or of a part of what it did
  perseq trace check ls.trace
  perseq trace replay ls.trace --modes percpu,perthread --fold 2
  perseq trace synthesize server server.trace        one that is made up, the same each time")]
    Trace {
        /// What to do.
        #[command(subcommand)]
        action: Action,
    },
    /// Print a script that completes this command in a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
    /// Choose size classes for a program from a histogram of what it asks for.
    Classes(crate::classes::Arguments),
    /// Fetch and build the usual rivals, and list what is there.
    Peers(crate::peers::Arguments),
    /// Hold the per-thread mode beside the thread caches of other allocators, on the work of E01, E02 and E05.
    Calibrate(crate::calibrate::Arguments),
    /// Count how often a run finds what was planted in it, and what is not there.
    Power(crate::power::Arguments),
    /// Compare perseq with other allocators through malloc and free, each preloaded.
    Suite(crate::suite::Arguments),
    /// Run real programs on libperseq and compare what they print, need and take with the C library's malloc.
    Programs(crate::programs::Arguments),
    /// Run experiments in a simulated machine: more CPUs, other caches, and every miss counted. No times.
    Simulate(crate::simulate::Arguments),
    /// Print what the allocator of a running process holds and has done: in total, by cache and by size class.
    Stats(crate::live::Stats),
    /// Watch the allocator of a running process.
    Top(crate::live::Top),
    /// Draw the heap of a running process: its spans by address, class and occupancy, huge pages, and what went back.
    Map(crate::live::map::Arguments),
    /// Run a program on libperseq, and say which of its functions allocate what, and what is still in use at its end.
    Profile(crate::heap_profile::Arguments),
    /// Say what each allocator leaves of the limits on a process: address space, locked memory, commit charge, mappings.
    Limits(crate::limits::Arguments),
    /// Measure one row of that table (started by limits).
    #[command(hide = true)]
    LimitsProbe {
        /// Name of the row.
        case: String,
    },
    /// Let storms rage over the heap, and stop at the first block that is lost, doubled or corrupted.
    Torture(crate::torture::Arguments),
    /// Run one storm (started by torture).
    #[command(hide = true)]
    TortureWorker,
    /// Stop or trace another process (started by a storm).
    #[command(hide = true)]
    TortureActor {
        /// What to do to it.
        what: String,
        /// Its id.
        process: i32,
        /// Seed of every choice.
        seed: u64,
    },
    /// Print which allocator is active in this process (started by the others).
    #[command(hide = true)]
    Probe,
    /// Take one sample of the suite (started by the others).
    #[command(hide = true)]
    SuiteWorker,
    /// Take one sample (started by the others).
    #[command(hide = true)]
    Worker,
}

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public(), "perseq", &mut script);
    output::print(&String::from_utf8_lossy(&script)).map(|()| Exit::Done)
}

/// Prints the manual page, with a section for each command.
pub fn man() -> Result<Exit, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let man = clap_mangen::Man::new(sub.clone());
            page.extend(format!(".SH COMMAND {}\n", sub.get_name().to_uppercase()).bytes());
            man.render_description_section(&mut page)?;
            man.render_options_section(&mut page)?;
        }
        Ok(())
    });
    written.map_err(|error| Failure::host(format!("the manual page: {error}")))?;
    output::print(&String::from_utf8_lossy(&page)).map(|()| Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
