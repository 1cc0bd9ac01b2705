//! `perseq trace record`: a program and all that it starts, each process with the recorder preloaded; one trace of them.

use crate::beside::{self, RECORDER};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::trace::import::{HEAD_BYTES, LeftOut, Process, head, import};
use crate::trace::merge::merge;
use crate::trace::{MOST_OBJECTS, MOST_THREADS, Trace};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is to be recorded.
pub struct Wanted<'a> {
    /// Where the trace will be written.
    pub out: &'a Path,
    /// Where the recordings are kept. None: nowhere.
    pub keep: Option<&'a Path>,
    /// Events that each recording has room for. None: the recorder's own number.
    pub events: Option<u64>,
    /// The recorder, if it does not lie beside this program.
    pub recorder: Option<&'a Path>,
    /// The program and its arguments.
    pub program: &'a [String],
}

/// Name of a recording before the number of its process.
const NAME: &str = "recording";

/// Records, and says which process is which. The second: whether the program came to a good end.
pub fn run(wanted: &Wanted) -> Result<(Trace, Exit), Failure> {
    let recorder = beside::preloadable(&RECORDER.find(wanted.recorder)?).map_err(Failure::host)?;
    let (name, arguments) = wanted.program.split_first().ok_or_else(|| Failure::usage("trace record: no program"))?;
    let out = std::path::absolute(wanted.out).map_err(|error| Failure::file(wanted.out, "write", error))?;
    let cannot = |error| Failure::file(wanted.out, "write", error);
    // Beside the trace: what can be written now can be written then, and it is on the same device.
    let around = out.parent().unwrap_or(Path::new("/"));
    let scratch = tempfile::Builder::new().prefix(".perseq-recording-").tempdir_in(around).map_err(cannot)?;
    let folder = match wanted.keep {
        Some(folder) => {
            fs::create_dir(folder).map_err(|error| Failure::file(folder, "create", error))?;
            std::path::absolute(folder).map_err(|error| Failure::file(folder, "create", error))?
        }
        None => scratch.path().to_owned(),
    };
    let mut command = Command::new(name);
    command.args(arguments).env("LD_PRELOAD", &recorder).env("PERSEQ_TRACE_FILE", folder.join(NAME));
    if let Some(events) = wanted.events {
        command.env("PERSEQ_TRACE_EVENTS", events.to_string());
    }
    // Ctrl-C ends the program, which has it as well, and then there is a trace to be written.
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; a program that is executed begins without it.
    let handled = unsafe { signal(Signal::SIGINT, SigHandler::Handler(nothing)) };
    handled.map_err(|error| Failure::host(format!("cannot handle Ctrl-C: {error}")))?;
    let status = command.status().map_err(|error| Failure::usage(format!("{name}: cannot start: {error}")))?;

    let (mut parts, mut left_out, mut said) = (Vec::new(), LeftOut::default(), String::new());
    for recording in recordings(&folder)? {
        let Some((process, bytes)) = used(&recording)? else { continue };
        let imported =
            import(&bytes, 0, u64::MAX).map_err(|why| Failure::usage(format!("{}: {why}", recording.display())))?;
        let (threads, events) = (imported.trace.threads.len(), imported.trace.events());
        let line = format!("{:>8} {:16} {threads} threads, {events} events", process.id, process.name);
        said += &format!("{}\n", line.trim_end());
        left_out.add(imported.left_out);
        parts.push((process, imported.trace));
    }
    if parts.is_empty() {
        return Err(Failure::usage(format!(
            "{name}: {status}, and no recording came of it: is it linked statically, or does it run with other privileges \
             or without its environment?"
        )));
    }
    let whole = merge(parts);
    let (threads, objects) = (whole.threads.len(), whole.objects);
    if threads > MOST_THREADS as usize || objects > MOST_OBJECTS {
        return Err(Failure::usage(format!(
            "{threads} threads and {objects} objects in all processes: expected at most {MOST_THREADS} and {MOST_OBJECTS}; \
             --keep keeps the recordings, of which `trace import` makes traces one by one"
        )));
    }
    left_out.warn();
    output::print(&said)?;
    if !status.success() {
        eprintln!("warning: {name}: {status}");
    }
    Ok((whole, if status.success() { Exit::Done } else { Exit::Partial }))
}

/// The recordings of a folder, in the order of their names.
fn recordings(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::file(folder, "read", error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        found.push(entry.map_err(failed)?.path());
    }
    found.sort();
    Ok(found)
}

/// Whose a recording is, and the bytes of it that are in use. It is cut off behind them, unless its process still writes
/// there. None: it was never begun.
fn used(recording: &Path) -> Result<Option<(Process, Vec<u8>)>, Failure> {
    let failed = |error| Failure::file(recording, "read", error);
    let mut file = OpenOptions::new().read(true).write(true).open(recording).map_err(failed)?;
    let mut bytes = [0; HEAD_BYTES];
    let begun = file.read(&mut bytes).map_err(failed)?;
    if begun < HEAD_BYTES || bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (process, length) = head(&bytes).map_err(|why| Failure::usage(format!("{}: {why}", recording.display())))?;
    let rest = length - HEAD_BYTES as u64;
    let mut bytes = bytes.to_vec();
    Read::by_ref(&mut file).take(rest).read_to_end(&mut bytes).map_err(failed)?;
    if still_writes(&process, recording) {
        eprintln!("warning: process {} ({}) still runs; its trace ends here", process.id, process.name);
    } else {
        file.set_len(bytes.len() as u64).map_err(failed)?;
    }
    Ok(Some((process, bytes)))
}

/// Whether it maps its recording; another program that it executed, or what is left of it, does not.
fn still_writes(process: &Process, recording: &Path) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.id));
    maps.is_ok_and(|maps| maps.contains(&*recording.to_string_lossy()))
}
