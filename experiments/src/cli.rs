//! The command line.

use crate::subject::Subject;
use clap::{Parser, Subcommand};
use regex::Regex;
use std::path::PathBuf;

/// Which cache is better, one per CPU or one per thread? Measured on one allocator.
#[derive(Debug, Parser)]
#[command(name = "perseq", version, about, after_help = EXITS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXITS: &str = "Exit codes: 0 done, 1 a check failed, 2 wrong input, 3 this host cannot do it, 4 partly done.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this host can measure, and what not and why.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check that every mode is what it claims, that sequences are atomic here, and that known answers come out.
    Selftest {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the experiments, their cells and the time each profile takes.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run experiments and write the report.
    Run(Run),
    /// Take the samples that an interrupted run left out, and write the report.
    Resume {
        /// Directory of the run.
        dir: PathBuf,
    },
    /// Build the report again from the raw rows alone.
    Report {
        /// Directory of the run.
        dir: PathBuf,
    },
    /// Take one sample (started by the others).
    #[command(hide = true)]
    Worker,
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// How much to measure: `quick` is a smoke test, `standard` may be cited, `full` takes hours.
    #[arg(long, default_value = "quick", value_parser = ["quick", "standard", "full"])]
    pub profile: String,
    /// Run only cells whose id or experiment's title matches, for instance `E03/rule=B`.
    #[arg(long, value_name = "REGEX")]
    pub filter: Option<Regex>,
    /// Measure these modes instead of the profile's.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub modes: Option<Vec<Subject>>,
    /// Seed of every random choice. Default: drawn, and recorded.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Blocks per cell instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub blocks: Option<u64>,
    /// Measured milliseconds per sample instead of the profile's.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub measure_ms: Option<u64>,
    /// Directory to create for the run. Default: `runs/TIME-PROFILE`, in UTC.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Threads a sample may have, if fewer than this host allows.
    #[arg(long)]
    pub max_threads: Option<u64>,
    /// Mebibytes a sample may need, if fewer than this host allows.
    #[arg(long, value_name = "MIB")]
    pub max_mem: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
