//! C programs of this folder, built once, and run in every mode within a time limit.
#![allow(dead_code)] // each test binary uses a part of the kit

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::kit::{MODES, library};

/// Seconds that a program may take: a hang is a failure, a busy machine is not.
const LIMIT: Duration = Duration::from_secs(180);

/// Builds `tests/<source>` with these further arguments of the compiler; the program, or library, that it made.
pub fn build_c(source: &str, arguments: &[&str]) -> PathBuf {
    let name = source.replace(['/', '.'], "-") + &arguments.concat().replace(['/', '='], "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Tests side by side build the same program, and nobody may run one that is half written.
    static DRAFTS: AtomicUsize = AtomicUsize::new(0);
    let draft = folder.join(format!("{name}.draft-{}-{}", std::process::id(), DRAFTS.fetch_add(1, Relaxed)));
    let status = Command::new("cc")
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&draft)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source))
        .args(arguments)
        .args(["-pthread", "-ldl"])
        .status()
        .expect("cc starts; .ci/run installs it");
    assert!(status.success(), "{source} does not build");
    let target = folder.join(name);
    std::fs::rename(&draft, &target).expect("a name for the program");
    target
}

/// How a program ended and what it said.
pub struct Outcome {
    what: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts that the program ended with `code` and printed `text`.
    pub fn ended(self, code: i32, text: &str) -> Outcome {
        assert!(self.status.code() == Some(code) && self.stdout.contains(text), "{self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { what, status, stdout, stderr } = self;
        write!(f, "{what}: {status}\n--- its output\n{stdout}--- its errors\n{stderr}---")
    }
}

/// Runs a command to its end. One that takes longer than [`LIMIT`] is killed with all it started, and fails the test.
pub fn run(mut command: Command) -> Outcome {
    let what = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("a pipe of ours");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("piped")));
    let stderr = read(Box::new(child.stderr.take().expect("piped")));
    let start = Instant::now();
    let (status, hung) = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break (status, false);
        }
        if start.elapsed() > LIMIT {
            // SAFETY: kill has no preconditions; the group is the child's own.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            break (child.wait().expect("our child"), true);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let outcome = Outcome {
        what,
        status,
        stdout: stdout.join().expect("a reader does not panic"),
        stderr: stderr.join().expect("a reader does not panic"),
    };
    assert!(!hung, "killed after {LIMIT:?}: {outcome}");
    outcome
}

/// A mode of [`MODES`], or `hardened`.
pub fn every_mode() -> impl Iterator<Item = &'static str> {
    MODES.into_iter().chain(["hardened"])
}

/// `program` on libperseq, in a mode or `hardened`, behind these other preloaded libraries.
pub fn on_libperseq(program: &Path, mode: &str, before: &[&Path]) -> Command {
    let libraries: Vec<_> = before.iter().copied().chain([library()]).map(|path| path.display().to_string()).collect();
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", libraries.join(":"));
    match mode {
        "hardened" => command.env("PERSEQ_HARDENED", "1"),
        mode => command.env("PERSEQ_MODE", mode),
    };
    command
}
