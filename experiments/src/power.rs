//! `perseq power`: how often a run finds what was planted in it, and how often it finds what is not there.
//!
//! One cell of E01 is measured again and again, each time as a whole run, with a plan, rows and a report of its own. In
//! each the baseline also runs in two further arms: with nothing planted, which is a comparison of it with itself, and
//! with known work on top, which the rule has to find four times in five where the run printed a resolution that fine.

use crate::definition::{self, Definition, Planted, ProfileCells};
use crate::experiment::{self, Options};
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents};
use crate::harness::{conduct, manifest};
use crate::host::limits::Limits;
use crate::output;
use crate::plan::{self, Choice};
use crate::report;
use crate::report::analysis::{Analysis, Planted as Arm, Ratio};
use crate::report::tables;
use crate::run;
use crate::subject::{BASELINE, TWINNED};
use crate::workload::think;
use crate::written;
use perseq_statistics::proportion;
use std::path::PathBuf;

/// Whose work it is, and how much of it.
const EXPERIMENT: &str = "E01";
const DEPTH: u64 = 64;
/// Name of the profile, and of the file with the table.
const NAME: &str = "power";
/// What the printed resolution promises: that so many are found.
const PROMISE: f64 = 0.8;
/// How often it may be found that a mode differs from itself.
const FALSE_ALARMS: f64 = 0.05;

/// Options of `perseq power`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq power                           3 % planted, in twenty runs of one cell: about 30 minutes
  perseq power --percent 1 --blocks 900  a smaller difference, in longer runs
  perseq power --runs 2 --blocks 3 --measure-ms 20   a few seconds, which say nothing

Exit code 1: fewer were found, or more was found where nothing was planted, than the rule promises and chance explains.")]
pub struct Arguments {
    /// Runs.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: u64,
    /// Work to plant, in per cent of the time of the baseline.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    percent: u64,
    /// Blocks per run.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u64).range(2..=1000))]
    blocks: u64,
    /// Measured milliseconds per sample.
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    measure_ms: u64,
    /// Seed of the first run; each further one has the next. Default: drawn, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Directory to create, with a folder for each run. Default: `runs/TIME-power`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `perseq power`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let definition = asked(arguments)?;
    let first = arguments.seed.unwrap_or_else(rand::random);
    let name = format!("{}-{NAME}", manifest::stamp());
    let folder = Archive::create(arguments.out.as_deref(), &name)?.root().to_owned();
    let links_per_ms = think::calibrate();
    let (mut found, mut validity) = (Vec::new(), Vec::new());
    for number in 0..arguments.runs {
        let seed = first.wrapping_add(number);
        let choice = choice(seed, links_per_ms);
        let definitions = vec![definition.clone()];
        let plan = plan::make(&definitions, &choice, &Limits::read())?;
        let archive = Archive::create(Some(&folder.join(format!("{:03}", number + 1))), NAME)?;
        let run_id = format!("{name}-{:03}", number + 1);
        let mut manifest = experiment::manifest(run_id, NAME, seed, Options::default(), definitions)?;
        manifest.about.links_per_ms = Some(links_per_ms);
        if validity.is_empty() {
            manifest::warn_of_debug_build(&manifest.tool);
            validity = run::gate(&plan);
        }
        manifest.about.validity = validity.clone();
        if !manifest.about.valid() {
            return Err(Failure::host(format!("{}: E00 failed; perseq selftest says what", folder.display())));
        }
        let mut run = Contents::new(&archive, manifest, plan)?;
        if !conduct::complete(&experiment::Experiments, &archive, &mut run)? {
            eprintln!(
                "{}: {number} whole runs of {}; a run that was cut is not counted",
                folder.display(),
                arguments.runs
            );
            return Ok(Exit::Partial);
        }
        if conduct::verdict(&run.rows) != Exit::Done {
            return Ok(Exit::Invalid);
        }
        let (origin, analysis) = (run.origin(), Analysis::new(run));
        report::write_analysis(&archive, origin, &analysis)?;
        found.push(Found::of(&analysis, arguments.percent)?);
    }
    let (text, kept) = page(arguments, first, &found);
    written::whole(&folder.join(format!("{NAME}.txt")), text.as_bytes())?;
    output::print(&format!("{text}{}\n", folder.display()))?;
    Ok(if kept { Exit::Done } else { Exit::Invalid })
}

/// The experiment with this one cell.
fn asked(arguments: &Arguments) -> Result<Definition, Failure> {
    let here = definition::all().into_iter().find(|definition| definition.id == EXPERIMENT);
    let definition = here.ok_or_else(|| Failure::host(format!("{EXPERIMENT} is not defined")))?;
    let cells = ProfileCells {
        measure_ms: arguments.measure_ms,
        blocks: arguments.blocks,
        modes: vec![TWINNED, BASELINE],
        beside: Vec::new(),
        beside_blocks: 0,
        vary: [("depth".to_owned(), vec![DEPTH])].into(),
        also: Vec::new(),
        planted: vec![Planted { at: Default::default(), percent: vec![0, arguments.percent] }],
        scale: None,
    };
    Ok(Definition { profiles: [(NAME.to_owned(), cells)].into(), ..definition })
}

/// All of it, in the order that `seed` makes.
fn choice(seed: u64, links_per_ms: u64) -> Choice {
    Choice {
        profile: NAME.into(),
        filter: None,
        modes: None,
        blocks: None,
        measure_ms: None,
        seed,
        links_per_ms: Some(links_per_ms),
        counters: Vec::new(),
    }
}

/// What one run found.
struct Found {
    /// The resolution that it printed, in the noise of the same mode twice.
    resolution: Option<f64>,
    /// Of what was planted, and of nothing: the ratio with its interval, and whether the rule said "slower", or anything.
    planted: (String, bool),
    nothing: (String, bool),
}

impl Found {
    fn of(analysis: &Analysis, percent: u64) -> Result<Found, Failure> {
        let experiment = analysis.experiments.first();
        let result =
            experiment.and_then(|experiment| experiment.cells.first()?.result(&experiment.definition.headline));
        let result = result.ok_or_else(|| Failure::host("a run without its only cell".to_owned()))?;
        let arm = |percent: u64| {
            let arm = result.planted.iter().find(|planted| planted.percent == percent);
            let missing = |reason: &str| Failure::host(format!("{percent} % planted: {reason}"));
            let arm: &Arm = arm.ok_or_else(|| missing("no such samples"))?;
            let ratio: &Ratio = arm.ratio.as_ref().map_err(|reason| missing(reason))?;
            Ok((tables::estimate(ratio.mean), arm.found, ratio.side.decided()))
        };
        let ((slowed, is_found, _), (same, _, differs)) = (arm(percent)?, arm(0)?);
        Ok(Found { resolution: result.resolution, planted: (slowed, is_found), nothing: (same, differs) })
    }

    /// Whether the run promised to find so much.
    fn promised(&self, percent: u64) -> bool {
        self.resolution.is_some_and(|resolution| resolution <= percent as f64 / 100.0)
    }
}

/// The table, and whether chance explains what was not found, and what was.
fn page(arguments: &Arguments, seed: u64, found: &[Found]) -> (String, bool) {
    let Arguments { percent, blocks, measure_ms, .. } = arguments;
    let mut text = format!(
        "{EXPERIMENT}, depth {DEPTH}: {TWINNED} and {BASELINE}, and {BASELINE} with 0 % and {percent} % of its time planted.\n\
         {} runs of {blocks} blocks, {measure_ms} ms a sample, seeds from {seed}.\n\n{:>4}  {:>10}  {:>24}  {:<5}  {:>24}  {:<5}\n",
        found.len(),
        "run",
        "resolution",
        format!("{percent} % planted"),
        "found",
        "nothing planted",
        "found",
    );
    let word = |yes: bool| if yes { "yes" } else { "no" };
    for (number, Found { resolution, planted, nothing }) in (1..).zip(found) {
        let resolution = tables::resolution(*resolution);
        let (slowed, same) = (word(planted.1), word(nothing.1));
        text +=
            &format!("{number:>4}  {resolution:>10}  {:>24}  {slowed:<5}  {:>24}  {same:<5}\n", planted.0, nothing.0);
    }
    let promised: Vec<_> = found.iter().filter(|found| found.promised(*percent)).collect();
    let count = |all: &[&Found], is: fn(&Found) -> bool| all.iter().filter(|found| is(found)).count();
    let all: Vec<_> = found.iter().collect();
    let (seen, of) = (count(&promised, |found| found.planted.1), promised.len());
    let (alarms, runs) = (count(&all, |found| found.nothing.1), all.len());
    let share = |count: usize, of: usize| {
        let (low, high) = proportion(count, of);
        format!("{count} of {of} (95 %: {:.0} to {:.0} %)", low * 100.0, high * 100.0)
    };
    text += &format!("\nFound, of the runs that printed {percent} % or better: {}. ", share(seen, of));
    text += &format!(
        "The rule promises four in five.\nFound, of all runs: {}.\n",
        share(count(&all, |found| found.planted.1), runs)
    );
    text += &format!(
        "Found where nothing was planted: {}. The rule promises one in twenty at most.\n",
        share(alarms, runs)
    );
    let kept = proportion(seen, of).1 >= PROMISE && proportion(alarms, runs).0 <= FALSE_ALARMS;
    if !kept {
        text += "The rule does not keep its promise here.\n";
    }
    (text, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments { runs: 20, percent: 3, blocks: 10, measure_ms: 200, seed: None, out: None }
    }

    fn found(runs: usize, resolution: f64, planted: usize, nothing: usize) -> Vec<Found> {
        let arm = |is: bool| ("1.03".to_owned(), is);
        let run = |number: usize| (arm(number < planted), arm(number < nothing));
        let runs = (0..runs).map(run);
        runs.map(|(planted, nothing)| Found { resolution: Some(resolution), planted, nothing }).collect()
    }

    #[test]
    fn a_promise_is_broken_where_chance_does_not_explain_it() {
        let kept = |found: &[Found]| page(&arguments(), 1, found).1;
        assert!(kept(&found(20, 0.02, 20, 0)) && kept(&found(20, 0.02, 13, 0)));
        assert!(!kept(&found(20, 0.02, 11, 0)), "half of them");
        assert!(kept(&found(20, 0.04, 0, 0)), "nothing was promised");
        assert!(kept(&found(20, 0.02, 20, 3)) && !kept(&found(20, 0.02, 20, 5)));
        let (text, _) = page(&arguments(), 7, &found(20, 0.02, 19, 1));
        assert!(text.contains("3 % or better: 19 of 20 (95 %: 75 to 100 %)"), "{text}");
        assert!(text.contains("nothing was planted: 1 of 20 (95 %: 0 to 25 %)"), "{text}");
    }

    #[test]
    fn the_plan_has_both_arms_in_every_block() {
        let definition = asked(&arguments()).unwrap();
        let plan = plan::make(&[definition], &choice(1, 1), &Limits::none()).unwrap();
        for percent in [None, Some(0), Some(3)] {
            let of = plan.iter().filter(|planned| planned.task.planted_percent == percent);
            assert_eq!(of.count(), if percent.is_none() { 30 } else { 10 }, "{percent:?}");
        }
    }
}
