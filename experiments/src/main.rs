//! # The perseq command: questions, and the method that answers them
//!
//! 1. [`definition`]: a question with its prediction, written down before it is asked; [`provenance`] says when.
//! 2. [`plan`]: every sample and its place in a shuffled order, made from one seed.
//! 3. [`harness`]: one loop for every kind of run. A sample is a fresh process, watched by the [`gate`]s; what happens
//!    becomes a row of the run's directory, and rows are checked whenever they are read.
//! 4. [`worker`]: inside that process, a [`workload`] runs and [`proof`] shows in which mode.
//! 5. [`report`]: [`statistics`] over the rows alone, the same bytes each time.
//!
//! Five kinds of run share the harness: the experiments ([`mod@experiment`], started by [`run`]); the [`suite`], which
//! measures each [`pattern`] on the rivals that [`peers`] builds, through the C interface; [`programs`], which runs real
//! programs on libperseq; [`replay`], which repeats a [`trace`] of another program; and [`mod@simulate`], which runs the
//! experiments in emulated guests and counts what a model of caches says.
//!
//! Beside a run: [`doctor`] and [`selftest`] say whether to believe this host, [`compare`] holds two runs together,
//! [`rows`] shows what a number of the report was made of, [`counters`] are read in a pass of their own, and
//! [`directory`] makes reports again and completes interrupted runs; [`merge`] joins runs that took a part of a plan each.
//! [`limits`] says what allocators leave of the limits on a process. [`calibrate`] holds the baseline beside the thread
//! caches of other allocators. [`power`] counts how often a run finds what was planted in it. [`torture`] measures nothing:
//! it looks for what the allocator loses in storms. [`live`] reads the numbers of an allocator in another process.
//! [`heap_profile`] says what a program allocates where.
//! [`beside`] finds the libraries that all of these need.
//!
//! Three rules hold everywhere. A missing value is `null` with a reason, never 0. No row is dropped in
//! silence. No sentence of a report goes further than its rows.

#[cfg(test)]
#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
mod addresses;
mod beside;
mod calibrate;
mod checksum;
mod classes;
mod cli;
mod compare;
mod compressed;
mod counters;
mod definition;
mod directory;
mod doctor;
mod experiment;
mod failure;
mod gate;
mod harness;
mod heap_profile;
mod host;
mod host_file;
mod instrument;
mod known;
mod limits;
mod list;
mod live;
mod mappings;
mod marks;
mod measurement;
mod memory;
mod merge;
mod output;
mod own;
mod pattern;
mod peers;
mod plan;
mod power;
mod programs;
mod proof;
mod provenance;
mod record;
mod replay;
mod report;
mod rows;
mod run;
mod selftest;
mod simulate;
mod subject;
mod suite;
mod torture;
mod totals;
mod trace;
mod traces;
mod validity;
mod worker;
mod workload;
mod written;

use cli::Command;
use failure::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    harness::process::usual_signals();
    harness::launch::if_asked();
    simulate::guest::if_first();
    let outcome = match cli::parse().command {
        Command::Doctor { json, deep } => doctor::main(json, deep),
        Command::Selftest { json } => selftest::main(json),
        Command::List { json, filter, definition } => list::main(json, filter.as_ref(), &definition),
        Command::Run(arguments) => run::run(&arguments),
        Command::Resume(arguments) => directory::resume(&arguments),
        Command::Report { dir, accept_changed } => directory::report(&dir, accept_changed),
        Command::Pack { dir } => directory::pack(&dir),
        Command::Merge(arguments) => merge::main(&arguments),
        Command::Rows(arguments) => rows::main(&arguments),
        Command::Compare(arguments) => compare::main(&arguments),
        Command::Trace { action } => traces::main(&action),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man => cli::man(),
        Command::Classes(arguments) => classes::main(&arguments),
        Command::Peers(arguments) => peers::main(&arguments),
        Command::Calibrate(arguments) => calibrate::main(&arguments),
        Command::Power(arguments) => power::main(&arguments),
        Command::Suite(arguments) => suite::main(&arguments),
        Command::Programs(arguments) => programs::main(&arguments),
        Command::Simulate(arguments) => simulate::main(&arguments),
        Command::Stats(arguments) => live::stats(&arguments),
        Command::Top(arguments) => live::top(&arguments),
        Command::Map(arguments) => live::map::main(&arguments),
        Command::Profile(arguments) => heap_profile::main(&arguments),
        Command::Limits(arguments) => limits::main(&arguments),
        Command::LimitsProbe { case } => limits::probe::main(&case).map(|()| Exit::Done),
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
