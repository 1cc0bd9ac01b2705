//! `perseq trace`: what a program allocated, recorded, checked and replayed in every mode.

use crate::compressed;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::record;
use crate::replay;
use crate::report::number;
use crate::subject::Subject;
use crate::trace::{self, Event, Trace, import, synthetic};
use std::fs;
use std::path::{Path, PathBuf};

/// What to do with traces.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Run a program and write one trace of what it and all programs it starts allocate.
    Record {
        /// The trace to write; compressed if its name ends in `.gz`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Keep the recordings, one of each process, in this new directory: `trace import` makes a trace of one.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// Events to have room for in the recording of each process.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
        events: Option<u64>,
        /// The recorder, if it does not lie beside this program.
        #[arg(long, value_name = "FILE")]
        recorder: Option<PathBuf>,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        program: Vec<String>,
    },
    /// Make a trace of a recording.
    Import {
        /// The recording.
        recording: PathBuf,
        /// The trace to write; compressed if its name ends in `.gz`.
        out: PathBuf,
        /// Events to leave out at the start: those of a program that only begins.
        #[arg(long, default_value_t = 0, value_name = "N")]
        skip: u64,
        /// Events to take at most.
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
        most: u64,
    },
    /// Make up a trace, the same each time.
    Synthesize {
        /// Of what kind of program.
        kind: synthetic::Kind,
        /// The trace to write.
        out: PathBuf,
        /// Threads.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
        threads: u32,
        /// Events of each thread.
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        events: u32,
    },
    /// Check a trace and say what is in it.
    #[command(visible_alias = "check")]
    Stat {
        /// The trace.
        trace: PathBuf,
    },
    /// Replay a trace in several modes, in shuffled blocks, and verify every object.
    Replay {
        /// The trace.
        trace: PathBuf,
        /// The modes.
        #[arg(long, value_delimiter = ',', value_name = "A,B", default_value = "percpu,perthread,central,control")]
        modes: Vec<Subject>,
        /// Blocks.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1000))]
        blocks: u64,
        /// Milliseconds of each sample. A trace is repeated until they are over, and not cut off.
        #[arg(long, default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
        measure_ms: u64,
        /// Threads to replay on, if fewer than were recorded.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        fold: Option<u64>,
        /// Directory to create for the run. Default: `runs/TIME-replay`, in UTC.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Does it.
pub fn main(action: &Action) -> Result<Exit, Failure> {
    match action {
        Action::Record { out, keep, events, recorder, program } => {
            let (trace, exit) = record::run(&record::Wanted {
                out,
                keep: keep.as_deref(),
                events: *events,
                recorder: recorder.as_deref(),
                program,
            })?;
            write(out, &trace).map(|_| exit)
        }
        Action::Import { recording, out, skip, most } => {
            let bytes = fs::read(recording).map_err(|error| Failure::file(recording, "read", error))?;
            let named = |problem: String| Failure::usage(format!("{}: {problem}", recording.display()));
            let imported = import::import(&bytes, *skip, *most).map_err(named)?;
            imported.left_out.warn();
            write(out, &imported.trace)
        }
        Action::Synthesize { kind, out, threads, events } => {
            write(out, &synthetic::make(*kind, *threads as usize, *events as usize))
        }
        Action::Stat { trace } => output::print(&stat(&open(trace)?)).map(|()| Exit::Done),
        Action::Replay { trace, modes, blocks, measure_ms, fold, out } => replay::run(&replay::Wanted {
            trace,
            stat: stat(&open(trace)?), // a bad one is refused before any process starts
            modes,
            blocks: *blocks,
            measure_ms: *measure_ms,
            fold: *fold,
            out: out.as_deref(),
        }),
    }
}

fn open(path: &Path) -> Result<Trace, Failure> {
    trace::read(path).map_err(Failure::usage)
}

/// Compressed where the name ends so.
fn write(path: &Path, trace: &Trace) -> Result<Exit, Failure> {
    let bytes = trace.bytes();
    let packed = path.extension().is_some_and(|ending| ending == "gz");
    let bytes = if packed { compressed::gzip(&bytes) } else { Ok(bytes) };
    bytes.and_then(|bytes| fs::write(path, bytes)).map_err(|error| Failure::file(path, "write", error))?;
    output::print(&stat(trace)).map(|()| Exit::Done)
}

fn stat(trace: &Trace) -> String {
    let (mut live, mut peak, mut total, mut remote) = (0u64, 0, 0u64, 0u64);
    let (mut sizes, mut owners) = (vec![0; trace.objects as usize], vec![0; trace.objects as usize]);
    for (thread, event) in trace.in_order() {
        match event {
            Event::Allocate(object, size) => {
                (sizes[object as usize], owners[object as usize]) = (size, thread);
                (live, total) = (live + size, total + size);
                peak = live.max(peak);
            }
            Event::Free(object) => {
                live -= sizes[object as usize];
                remote += u64::from(owners[object as usize] != thread);
            }
        }
    }
    let frees = (trace.events() as u64 - trace.objects.min(trace.events() as u64)).max(1);
    format!(
        "{}{} threads, {} objects, {} events, {} in all; in one possible order {} live at most; {:.1} % of releases by \
         another thread; {} never released\n",
        if trace.synthetic { "synthetic: " } else { "" },
        trace.threads.len(),
        trace.objects,
        trace.events(),
        number::bytes(total as f64),
        number::bytes(peak as f64),
        100.0 * remote as f64 / frees as f64,
        number::bytes(live as f64),
    )
}
