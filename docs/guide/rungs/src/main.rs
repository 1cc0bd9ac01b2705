//! The command of the guide: measures a rung against the one before, or checks it.

use std::process::ExitCode;

use perseq_guide::measure::{self, Order};
use perseq_guide::{RUNGS, checker, rung, without_sequences, workload};

const USAGE: &str = "\
usage: cargo run --release -p perseq-guide -- RUNG [--blocks N] [--percent P]   beside the rung before it
       cargo run --release -p perseq-guide -- --check RUNG                      is what it hands out right?
       cargo run --release -p perseq-guide -- --list                            rungs and workloads
N blocks (default 10, at least 2) of P percent of the usual work (default 100).";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(Failure::Usage(why)) => {
            eprintln!("perseq-guide: {why}\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Failure::Work(why)) => {
            eprintln!("perseq-guide: {why}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    /// What was asked for makes no sense.
    Usage(String),
    /// It could not be done.
    Work(String),
}

fn run(arguments: &[&str]) -> Result<String, Failure> {
    match arguments {
        ["--list"] => Ok(list()),
        ["--check", name] => check(known(name)?),
        ["--sample", name, work, rest @ ..] => {
            let work = workload::workload(work).ok_or_else(|| Failure::Usage(format!("no workload {work}")))?;
            Ok(work.run(RUNGS[known(name)?].1, order(rest)?.percent).to_string())
        }
        [name, rest @ ..] if !name.starts_with('-') => {
            let (rung, order) = (known(name)?, order(rest)?);
            if rung == 0 {
                return Err(Failure::Usage(format!("{name} has no rung before it: {}", names(1))));
            }
            let table = measure::table(rung, order).map_err(Failure::Work)?;
            Ok(format!("{table}\n{}", sequences()))
        }
        _ => Err(Failure::Usage(format!("expected a rung: {}", names(1)))),
    }
}

fn names(from: usize) -> String {
    RUNGS[from..].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn known(name: &str) -> Result<usize, Failure> {
    rung(name).ok_or_else(|| Failure::Usage(format!("no rung {name}: expected one of {}", names(0))))
}

fn order(mut arguments: &[&str]) -> Result<Order, Failure> {
    let mut order = Order { blocks: 10, percent: 100 };
    while let [option, rest @ ..] = arguments {
        let (place, least) = match *option {
            "--blocks" => (&mut order.blocks, 2),
            "--percent" => (&mut order.percent, 1),
            _ => return Err(Failure::Usage(format!("no option {option}"))),
        };
        let [value, rest @ ..] = rest else { return Err(Failure::Usage(format!("{option} has no value"))) };
        let number = value.parse().ok().filter(|number| (least..=1_000_000).contains(number));
        *place = number.ok_or_else(|| Failure::Usage(format!("{option} {value}: expected {least} to 1000000")))?;
        arguments = rest;
    }
    Ok(order)
}

fn list() -> String {
    let works = workload::WORKLOADS.iter().map(|work| format!("{:<10} {}\n", work.name, work.about));
    format!("rungs: {}\n\n{}", names(0), works.collect::<String>())
}

/// Whether this process has sequences, in a line.
fn sequences() -> String {
    match without_sequences() {
        None => "Restartable sequences: available.".into(),
        Some(why) => format!("Restartable sequences: none, {why}. Lists of CPUs are one list under a lock."),
    }
}

fn check(rung: usize) -> Result<String, Failure> {
    let (name, allocator) = RUNGS[rung];
    let (threads, steps) = (4, 20_000);
    checker::check(allocator, threads, steps, 1).map_err(|wrong| Failure::Work(format!("{name}: {wrong}")))?;
    Ok(format!("{name}: right, by {threads} threads of {steps} steps. {}", sequences()))
}
