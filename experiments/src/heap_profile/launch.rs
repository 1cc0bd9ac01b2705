//! A program that runs on libperseq with a profile, and what its processes wrote.

use super::join::Process;
use super::text::Text;
use crate::beside::{self, LIBPERSEQ};
use crate::failure::Failure;
use nix::sys::signal::{SigHandler, Signal, signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What is to be profiled.
pub struct Wanted<'a> {
    /// Bytes from one sample to the next, in the mean.
    pub every: u64,
    /// Where the processes write: a folder, whose whole path this is.
    pub folder: &'a Path,
    /// libperseq, if it does not lie beside this program.
    pub libperseq: Option<&'a Path>,
    /// The program and its arguments.
    pub program: &'a [String],
}

/// Names of what processes write begin and end so; between them is the number of the process, and behind a dot that of an
/// allocator if it has several.
const BEGIN: &str = "heap.";
const END: &str = ".heap";

/// Runs the program to its end.
pub fn run(wanted: &Wanted) -> Result<ExitStatus, Failure> {
    let library = beside::preloadable(&LIBPERSEQ.find(wanted.libperseq)?).map_err(Failure::host)?;
    let (name, arguments) = wanted.program.split_first().ok_or_else(|| Failure::usage("profile: no program"))?;
    let prefix = wanted.folder.join(BEGIN.trim_end_matches('.'));
    let mut command = Command::new(name);
    command.args(arguments).env("LD_PRELOAD", library);
    command.env("PERSEQ_PROFILE", format!("{},{}", wanted.every, prefix.display()));
    // Ctrl-C ends the program, which has it as well, and then there may be a profile.
    extern "C" fn nothing(_: i32) {}
    for one in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: the handler does nothing; a program that is executed begins without it.
        let handled = unsafe { signal(one, SigHandler::Handler(nothing)) };
        handled.map_err(|error| Failure::host(format!("cannot handle Ctrl-C: {error}")))?;
    }
    command.status().map_err(|error| Failure::usage(format!("{name}: cannot start: {error}")))
}

/// What the processes wrote, by their numbers, and what of it cannot be read.
pub fn written(folder: &Path) -> Result<(Vec<Process>, Vec<Failure>), Failure> {
    let failed = |error| Failure::file(folder, "read", error);
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| process_of(name.strip_prefix(BEGIN)?.strip_suffix(END)?));
        found.extend(id.map(|id| (id, entry.path())));
    }
    found.sort();
    let (mut processes, mut unread) = (Vec::new(), Vec::new());
    for (id, path) in found {
        let text = fs::read(&path).map_err(|error| error.to_string());
        match text.and_then(|text| Text::parse(&String::from_utf8_lossy(&text))) {
            Ok(text) => processes.push(Process { id, text, root: "/".into() }),
            Err(why) => unread.push(Failure::file(&path, "read", why)),
        }
    }
    Ok((processes, unread))
}

/// The process of `PID`, or of `PID.ALLOCATOR`.
fn process_of(middle: &str) -> Option<u32> {
    let (process, allocator) = middle.split_once('.').unwrap_or((middle, "1"));
    allocator.parse::<u32>().ok()?;
    process.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_processes_are_read_and_others_left() {
        let folder = tempfile::tempdir().unwrap();
        let whole = "heap profile: 0: 0 [ 0: 0] @ heap_v2/4096\n\nMAPPED_LIBRARIES:\n";
        for (name, text) in [
            ("heap.12.heap", whole),
            ("heap.3.heap", whole),
            ("heap.3.2.heap", whole),
            ("heap.3.2.1.heap", whole),
            ("heap.4.heap", &whole[..20]),
            ("heap.pb.gz", "?"),
            ("heap.x.heap", "?"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (processes, unread) = written(folder.path()).unwrap();
        assert_eq!(processes.iter().map(|process| process.id).collect::<Vec<_>>(), [3, 3, 12]);
        let [unread] = &unread[..] else { panic!("{unread:?}") };
        assert!(unread.to_string().contains("heap.4.heap: cannot read: it is cut off"), "{unread}");
    }
}
