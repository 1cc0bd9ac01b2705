//! A process for each storm: started, watched, judged.

use super::fault::{LOSS, MARK};
use super::forces;
use super::heap::Plant;
use super::order::{Order, Report};
use super::random::{Random, hash};
use super::storm::Storm;
use super::subject::{HARDENED, NO_MODE, Subject};
use crate::beside::preloadable;
use crate::failure::Failure;
use nix::libc;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What became of a storm.
pub enum Verdict {
    /// Nothing was lost.
    Over {
        /// Operations of the team.
        operations: u64,
        /// How often each force happened.
        happened: Vec<(String, u64)>,
    },
    /// It cannot be had here.
    Absent(String),
    /// Something was.
    Lost(String),
    /// The user wants to stop.
    Interrupted,
}

impl Verdict {
    /// One line of the output.
    pub fn line(&self, storm: &Storm, subject: &Subject, seconds: f64) -> String {
        let place = format!("{:12} {:16} {:10}", storm.name, subject.mode, short(&subject.through));
        match self {
            Verdict::Over { operations, happened } => {
                let counts: Vec<_> = happened.iter().map(|(name, count)| format!("{name} {count}")).collect();
                let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
                format!("{place} {seconds:>7} {operations:>12} ok{counts}\n")
            }
            Verdict::Absent(reason) => format!("{place} {:>7} {:>12} not here: {reason}\n", "", ""),
            Verdict::Lost(what) => format!("{place} {seconds:>7} {:>12} LOST: {what}\n", ""),
            Verdict::Interrupted => format!("{place} {:>7} {:>12} interrupted\n", "", ""),
        }
    }
}

fn short(through: &str) -> &str {
    through.rsplit('/').next().unwrap_or(through)
}

/// Runs storms.
pub struct Runner {
    seconds: f64,
    patience: Duration,
    plant: Option<Plant>,
    libperseq: Option<PathBuf>,
    plugin: Option<PathBuf>,
    scratch: PathBuf,
    /// The switch of the CPU that a storm may have left offline.
    switch: Option<PathBuf>,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Runner {
    /// One with a folder of its own, which goes when it does.
    pub fn new(
        seconds: f64,
        patience: f64,
        plant: Option<Plant>,
        libperseq: Option<PathBuf>,
        plugin: Option<PathBuf>,
    ) -> Result<Runner, Failure> {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Relaxed))
            .map_err(|error| Failure::host(format!("cannot handle Ctrl-C: {error}")))?;
        let scratch = std::env::temp_dir().join(format!("perseq-torture-{}", std::process::id()));
        fs::create_dir_all(&scratch).map_err(|error| Failure::file(&scratch, "create", error))?;
        let patience = Duration::from_secs_f64(patience);
        let switch = forces::switch().ok();
        Ok(Runner { seconds, patience, plant, libperseq, plugin, scratch, switch })
    }

    /// Runs one storm to its end.
    pub fn run(&self, storm: &Storm, subject: &Subject, threads: usize, seed: u64) -> Result<Verdict, Failure> {
        let place = format!("{}/{}/{}", storm.name, subject.mode, subject.through);
        let own_seed = seed ^ hash(&place);
        let order = Order {
            storm: storm.name.into(),
            door: subject.door,
            mode: match subject.mode.as_str() {
                NO_MODE => None,
                HARDENED => Some("central".into()),
                mode => Some(mode.into()),
            },
            preloaded: subject.preload.clone(),
            seconds: self.seconds,
            threads,
            seed: own_seed,
            plant: self.plant,
            plugin: self.plugin.clone(),
            libperseq: self.libperseq.clone(),
            scratch: self.scratch.clone(),
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg("torture-worker").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PERSEQ_")) {
            command.env_remove(name);
        }
        command.env_remove("LD_PRELOAD");
        if let Some(library) = &subject.preload {
            // The worker looks whether it runs on it.
            command.env("LD_PRELOAD", preloadable(library).unwrap_or_else(|_| library.clone()));
        }
        match subject.mode.as_str() {
            NO_MODE => {}
            HARDENED => drop(command.env("PERSEQ_HARDENED", "1")),
            mode => {
                command.env("PERSEQ_MODE", mode);
                // A background thread starts whenever there is something to do, which a sandbox forbids.
                let forbidden = |name: &str| storm.name == "sandbox" && name == "PERSEQ_BACKGROUND";
                command.envs(setting(own_seed).iter().copied().filter(|(name, _)| !forbidden(name)));
            }
        }
        let end_with_us = || {
            // SAFETY: integers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: one system call.
        unsafe { command.pre_exec(end_with_us) };
        let start = |error| Failure::host(format!("cannot start a process: {error}"));
        let mut worker = command.spawn().map_err(start)?;
        let json = serde_json::to_string(&order).map_err(|error| Failure::host(error.to_string()))?;
        // A worker that is gone already says why by how it ended.
        worker.stdin.take().map(|mut stdin| stdin.write_all(json.as_bytes()));
        let (out, err) = (collect(worker.stdout.take()), collect(worker.stderr.take()));
        let ended = self.watch(&mut worker)?;
        let group = worker.id() as i32;
        // Children that a loss left behind.
        // SAFETY: the group is the worker's own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        self.tidy(group);
        let (out, err) = (finish(out), finish(err));
        Ok(match ended {
            None => Verdict::Interrupted,
            Some(Err(stacks)) => {
                eprint!("{stacks}");
                let after = self.patience.as_secs_f64();
                Verdict::Lost(format!("hung: it had not ended {after} s after its time"))
            }
            Some(Ok(status)) => judge(status, &out, &err),
        })
    }

    /// How it ended, or, if it did not, where it was. None: the user wants to stop.
    fn watch(&self, worker: &mut Child) -> Result<Option<Result<ExitStatus, String>>, Failure> {
        let limit = Duration::from_secs_f64(self.seconds) + self.patience;
        let start = Instant::now();
        loop {
            let ended = worker.try_wait().map_err(|error| Failure::host(format!("waiting for a process: {error}")))?;
            if let Some(status) = ended {
                return Ok(Some(Ok(status)));
            }
            let late = start.elapsed() > limit;
            if late || INTERRUPTED.load(Relaxed) {
                let stacks = late.then(|| stacks(worker.id() as i32));
                // SAFETY: the group is the worker's own.
                unsafe { libc::kill(-(worker.id() as i32), libc::SIGKILL) };
                drop(worker.wait());
                return Ok(stacks.map(Err));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a process that was killed in the middle could not put back.
    fn tidy(&self, worker: i32) {
        if let Some(switch) = &self.switch {
            drop(fs::write(switch, "1"));
        }
        if let Ok(group) = forces::own_group() {
            drop(fs::remove_dir(group.join(format!("perseq-torture-{worker}"))));
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.scratch));
    }
}

/// Options of the environment that go with a seed: without any, small caches, and all that takes caches from their owners.
fn setting(seed: u64) -> &'static [(&'static str, &'static str)] {
    const SETTINGS: [&[(&str, &str)]; 5] = [
        &[],
        &[("PERSEQ_CACHE_BYTES", "48K")],
        &[("PERSEQ_TOTAL_BYTES", "200K"), ("PERSEQ_IDLE_DRAIN", "1"), ("PERSEQ_TRANSFER_SHARDS", "3")],
        &[("PERSEQ_RELEASE", "now")],
        &[("PERSEQ_RELEASE", "1"), ("PERSEQ_BACKGROUND", "1"), ("PERSEQ_IDLE_DRAIN", "1")],
    ];
    Random::new(seed, 1).of(&SETTINGS)
}

fn judge(status: ExitStatus, out: &str, err: &str) -> Verdict {
    let fault = err.lines().find_map(|line| line.split_once(MARK).map(|(_, what)| what.to_owned()));
    if let Some(what) = fault {
        return Verdict::Lost(what);
    }
    let said = || {
        let lines: Vec<_> = err.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
    };
    match (status.code(), serde_json::from_str(out)) {
        (Some(0), Ok(Report::Over { operations, happened })) => {
            Verdict::Over { operations, happened: happened.into_iter().collect() }
        }
        (Some(0), Ok(Report::Absent(reason))) => Verdict::Absent(reason),
        (Some(LOSS), _) => {
            Verdict::Lost(format!("it ended as if it had found a loss, and did not say which{}", said()))
        }
        (Some(code), _) => Verdict::Lost(format!("it ended with exit code {code}{}", said())),
        (None, _) => Verdict::Lost(match status.signal() {
            Some(libc::SIGSYS) => format!("killed: a system call that the filter forbids (SIGSYS){}", said()),
            _ => format!("killed: {status}{}", said()),
        }),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<String>> {
    let mut pipe = pipe?;
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes)); // what came is there
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

fn finish(thread: Option<JoinHandle<String>>) -> String {
    thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

/// The stacks of every process of a group, by gdb.
fn stacks(group: i32) -> String {
    let (mut text, mut debugged) = (String::new(), Vec::new());
    for process in processes(group) {
        let command_line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        if command_line.windows(13).any(|words| words == b"torture-actor") {
            // It may be tracing the one to look at.
            // SAFETY: a process of the group.
            unsafe { libc::kill(process, libc::SIGKILL) };
        } else {
            debugged.push(process);
        }
    }
    // One that is stopped cannot be looked at; what it is stopped by stands in its state.
    for process in debugged {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or("State: gone");
        text += &format!("--- process {process}, {state}\n");
        // SAFETY: a process of the group.
        unsafe { libc::kill(process, libc::SIGCONT) };
        std::thread::sleep(Duration::from_millis(200));
        let mut gdb = Command::new("timeout");
        gdb.args(["300", "gdb", "-nx", "-batch", "-ex", "thread apply all backtrace 24", "-p", &process.to_string()]);
        match gdb.stdin(Stdio::null()).env_remove("LD_PRELOAD").output() {
            Ok(output) if output.status.code() != Some(127) => {
                text += &String::from_utf8_lossy(&output.stdout);
                text += &String::from_utf8_lossy(&output.stderr);
            }
            _ => text += "no stacks: gdb is not installed\n",
        }
    }
    text
}

fn processes(group: i32) -> Vec<i32> {
    let entries = fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_group = |process: &i32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state, parent, group.
        let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        fields.nth(2).and_then(|field| field.parse().ok()) == Some(group)
    };
    numbers.filter(of_group).collect()
}
