//! The replay of a trace as a kind of run: the same trace in several modes, in shuffled blocks, every object verified.

use crate::checksum;
use crate::definition::Parameters;
use crate::experiment::{self, Question, Row, Sample};
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents};
use crate::harness::conduct;
use crate::harness::manifest::{self, Manifest};
use crate::harness::place::{self, Planned};
use crate::harness::process::{Exited, Job};
use crate::harness::study::{self, Refusal, Study};
use crate::host::Host;
use crate::output;
use crate::report::number;
use crate::subject::{BASELINE, Subject};
use crate::worker::Report;
use crate::written::Folder;
use perseq_statistics::{Paired, median};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The modes, in the order of the table.
    pub modes: Vec<Subject>,
    /// SHA-256 of the trace.
    pub trace_sha256: String,
    /// What is in the trace.
    pub trace: String,
}

/// The replay of a trace, whose path no file of the run holds.
pub struct Replay {
    trace: PathBuf,
}

impl Study for Replay {
    const KIND: &'static str = "replay";
    type Task = Question;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Sample) -> Result<Job, String> {
        experiment::job(planned, Some(self.trace.clone()))
    }

    fn read(&self, _: &Sample, ended: &Exited) -> Result<Report, Refusal> {
        study::json(ended)
    }

    fn fault(question: &Question, report: &Report) -> Option<String> {
        experiment::fault(question, report)
    }

    fn remarks(report: &Report) -> Vec<String> {
        experiment::remarks(report)
    }

    fn baseline(_: &About) -> &str {
        BASELINE.name()
    }
}

/// What is to be replayed, and how often.
pub struct Wanted<'a> {
    /// The trace.
    pub trace: &'a Path,
    /// What is in it.
    pub stat: String,
    /// The modes.
    pub modes: &'a [Subject],
    /// Blocks.
    pub blocks: u64,
    /// Milliseconds of each sample.
    pub measure_ms: u64,
    /// Threads, if fewer than were recorded.
    pub fold: Option<u64>,
    /// Directory to create.
    pub out: Option<&'a Path>,
}

/// The seed of the order: replays of one trace are alike.
const SEED: u64 = 0x7ace;

/// Replays.
pub fn run(wanted: &Wanted) -> Result<Exit, Failure> {
    let trace = std::path::absolute(wanted.trace).map_err(|error| Failure::file(wanted.trace, "read", error))?;
    let about = About { modes: wanted.modes.to_vec(), trace_sha256: sum(&trace)?, trace: wanted.stat.clone() };
    let run_id = format!("{}-replay", manifest::stamp());
    let manifest = Manifest::new(Replay::KIND, run_id, SEED, &Host::read(), about)?;
    let archive = Archive::create(wanted.out, &manifest.run_id)?;
    let run = Contents::new(&archive, manifest, plan(wanted))?;
    finish(&archive, run, &trace)
}

fn plan(wanted: &Wanted) -> Vec<Sample> {
    let mut params = Parameters::from([("measure_ms".to_owned(), wanted.measure_ms)]);
    params.extend(wanted.fold.map(|fold| ("fold".to_owned(), fold)));
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut order = wanted.modes.to_vec();
    let mut plan = Vec::new();
    for block in 0..wanted.blocks {
        order.shuffle(&mut random);
        plan.extend(order.iter().map(|subject| {
            let sample = experiment::single("replay", "replay", *subject, params.clone());
            Planned {
                sample_id: place::name("replay", block, subject.name(), false),
                cell_id: "replay".into(),
                block,
                invocation_seed: block,
                env_pad: block * 61 % 4096,
                task: Question { addresses: Some(block), ..sample.task },
                ..sample
            }
        }));
    }
    place::numbered(plan)
}

/// Takes what is missing and prints the table. The trace must be the one that the run began with.
pub fn finish(archive: &Archive, mut run: Contents<Replay>, trace: &Path) -> Result<Exit, Failure> {
    if sum(trace)? != run.manifest.about.trace_sha256 {
        return Err(Failure::usage(format!("{}: not the trace of this run", trace.display())));
    }
    let study = Replay { trace: std::path::absolute(trace).map_err(|error| Failure::file(trace, "read", error))? };
    if !conduct::complete(&study, archive, &mut run)? {
        return Ok(Exit::Partial);
    }
    let exit = conduct::verdict(&run.rows);
    again(archive, &run).map(|_| exit)
}

/// The table again, from the rows.
pub fn again(archive: &Archive, run: &Contents<Replay>) -> Result<Exit, Failure> {
    run.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let text = table(&run.rows, &run.manifest.about);
    Folder::create(archive.root().to_owned(), run.origin())?.save("table.txt", &text)?;
    output::print(&run.origin().mark("table.txt", &text)).map(|()| Exit::Done)
}

fn table(rows: &[Row], about: &About) -> String {
    let values = |subject: Subject| -> BTreeMap<u64, f64> {
        let own = rows.iter().filter(|row| row.planned.task.mode_requested == subject);
        own.filter_map(|row| Some((row.planned.block, experiment::value(row, "pairs_per_s")?))).collect()
    };
    let base = values(BASELINE);
    let mut text = about.trace.clone();
    for subject in &about.modes {
        let own = values(*subject);
        if own.is_empty() {
            text += &format!("{:<16} no sample counts\n", subject.name());
            continue;
        }
        let pairs: Vec<_> = base.iter().filter_map(|(block, base)| Some((*base, *own.get(block)?))).collect();
        let middle = number::with_unit(median(&mut own.into_values().collect::<Vec<_>>()), "1/s");
        let ratio = Paired::new(&pairs).and_then(|paired| paired.t()).filter(|_| *subject != BASELINE);
        let ratio = ratio.map_or_else(String::new, |ratio| {
            let [middle, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number::ratio);
            format!("  {middle} [{low} to {high}] of {BASELINE}")
        });
        text += &format!("{:<16} {middle} objects{ratio}\n", subject.name());
    }
    text + "Every object was verified. The control arm is what replaying costs without an allocator.\n"
}

fn sum(path: &Path) -> Result<String, Failure> {
    checksum::of_file(path).map_err(|error| Failure::file(path, "read", error))
}
