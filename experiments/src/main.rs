//! # The perseq command: questions, and the method that answers them
//!
//! 1. [`definition`]: a question with its prediction, written down before it is asked.
//! 2. [`plan`]: every sample and its place in a shuffled order, made from one seed.
//! 3. [`sample`]: one fresh process, watched by the [`gate`]s; what happens becomes a row.
//! 4. [`worker`]: inside that process, a [`workload`] runs and [`proof`] shows in which mode.
//! 5. [`archive`]: rows are appended, never changed; [`manifest`] says on which host.
//! 6. [`report`]: [`statistics`] over the rows alone, the same bytes each time.
//!
//! Beside a run: [`doctor`] and [`selftest`] say whether to believe this host, [`compare`] holds two runs together,
//! [`rows`] shows what a number of the report was made of,
//! [`counters`] are read in a pass of their own, and [`trace`] brings the allocations of other programs.
//! Beside the experiments stand the rivals: [`peers`] builds them, [`suite`] measures each [`pattern`] on all of them
//! through the C interface, and [`programs`] runs real programs on libperseq. [`torture`] measures nothing: it looks
//! for what the allocator loses in storms.
//!
//! Three rules hold everywhere. A missing value is `null` with a reason, never 0. No row is dropped in
//! silence. No sentence of a report goes further than its rows.

mod archive;
mod checksum;
mod classes;
mod cli;
mod compare;
mod counters;
mod definition;
mod doctor;
mod failure;
mod gate;
mod host;
mod host_file;
mod instrument;
mod known;
mod list;
mod manifest;
mod measurement;
mod memory;
mod output;
mod pattern;
mod peers;
mod plan;
mod programs;
mod progress;
mod proof;
mod report;
mod rows;
mod run;
mod sample;
mod selftest;
mod statistics;
mod subject;
mod suite;
mod torture;
mod totals;
mod trace;
mod traces;
mod validity;
mod worker;
mod workload;

use clap::Parser;
use cli::Command;
use failure::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        Command::Doctor { json, deep } => doctor::main(json, deep),
        Command::Selftest { json } => selftest::main(json),
        Command::List { json, filter } => list::main(json, filter.as_ref()),
        Command::Run(arguments) => run::run(&arguments),
        Command::Resume { dir } => run::resume(&dir),
        Command::Report { dir } => report::main(&dir),
        Command::Rows(arguments) => rows::main(&arguments),
        Command::Compare(arguments) => compare::main(&arguments),
        Command::Trace { action } => traces::main(&action),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man => cli::man(),
        Command::Classes(arguments) => classes::main(&arguments),
        Command::Peers(arguments) => peers::main(&arguments),
        Command::Suite(arguments) => suite::main(&arguments),
        Command::Programs(arguments) => programs::main(&arguments),
        Command::Torture(arguments) => torture::main(&arguments),
        Command::TortureWorker => torture::worker::main().map(|()| Exit::Done),
        Command::TortureActor { what, process, seed } => {
            torture::forces::actor(&what, process, seed).map(|()| Exit::Done)
        }
        Command::Probe => peers::probe::main().map(|()| Exit::Done),
        Command::SuiteWorker => suite::worker::main().map(|()| Exit::Done),
        Command::Worker => worker::main().map(|()| Exit::Done),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("perseq: {failure}");
            failure.exit.into()
        }
    }
}
