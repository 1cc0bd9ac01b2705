//! The process of a sample: started in one place for every kind of run, waited for, and ended.

use super::launch::{PRELOAD, Seen, WORD};
use super::resident;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, SigSet, Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use wait_timeout::ChildExt;

/// This very binary, even if its file was replaced by another build meanwhile.
pub const OWN: &str = "/proc/self/exe";

/// How long a process that is told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// What is to be started.
#[derive(Debug)]
pub struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    inherits: bool,
    folder: Option<PathBuf>,
    input: Vec<u8>,
    files: Option<[PathBuf; 2]>,
    watched: bool,
    deadline: Duration,
}

impl Job {
    /// A program that may take so long, with an empty environment.
    pub fn new(program: impl Into<OsString>, deadline: Duration) -> Job {
        Job {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherits: false,
            folder: None,
            input: Vec::new(),
            files: None,
            watched: false,
            deadline,
        }
    }

    /// A hidden command of this binary, told `order` as a line of JSON on standard input: so the command line, and with it
    /// the start of the stack, is the same for every sample.
    pub fn own(command: &str, order: &impl serde::Serialize, deadline: Duration) -> Result<Job, String> {
        let input = serde_json::to_string(order).map_err(|error| error.to_string())? + "\n";
        Ok(Job { input: input.into(), ..Job::new(OWN, deadline).argument(command) })
    }

    /// One more argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Job {
        self.arguments.push(argument.into());
        self
    }

    /// More variables.
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Job {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The caller's environment too, but for what it preloads.
    pub fn inheriting(mut self) -> Job {
        self.inherits = true;
        self
    }

    /// The folder to work in, and files for standard output and standard error, so that both survive.
    pub fn in_folder(mut self, folder: PathBuf, files: [PathBuf; 2]) -> Job {
        (self.folder, self.files) = (Some(folder), Some(files));
        self
    }

    /// With an eye on its resident set while it runs.
    pub fn watched(mut self) -> Job {
        self.watched = true;
        self
    }

    /// As one of so many that work in turn: it may take as long as all of them.
    pub fn alongside(mut self, count: usize) -> Job {
        self.deadline *= count as u32;
        self
    }

    /// What it is told on standard input.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// How long it may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The launcher that will start it and write its report to `report`, with its standard input at `seat` if there is one.
    fn command(&self, report: &File, seat: Option<OwnedFd>) -> Result<Command, String> {
        let mut command = Command::new(OWN);
        command.arg(WORD).arg(report.as_raw_fd().to_string()).arg(&self.program).args(&self.arguments);
        if self.inherits {
            command.env_remove("LD_PRELOAD");
        } else {
            command.env_clear();
        }
        let name = |name: &OsStr| if name == "LD_PRELOAD" { PRELOAD.into() } else { name.to_owned() };
        command.envs(self.environment.iter().map(|(variable, value)| (name(variable), value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // A group of its own, so that Ctrl-C reaches the run and not the sample.
        command.process_group(0).stdin(seat.map_or_else(Stdio::piped, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let report = report.as_raw_fd();
        let inherit = move || {
            // SAFETY: sets a flag of a number, which is that of the report in the child as well.
            let done = unsafe { libc::fcntl(report, libc::F_SETFD, 0) };
            if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // Processes that start beside this one do not get its report.
        // SAFETY: fcntl is safe between fork and exec.
        unsafe { command.pre_exec(inherit) };
        if let Some([out, err]) = &self.files {
            let create = |path: &PathBuf| File::create(path).map_err(|error| format!("{}: {error}", path.display()));
            command.stdout(create(out)?).stderr(create(err)?);
        }
        Ok(command)
    }
}

/// A process that ended by itself, or by a signal of its own.
#[derive(Debug)]
pub struct Exited {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    /// From its start to its end.
    pub wall_ns: u64,
    /// Largest resident set of it, and of every descendant that was waited for.
    pub peak_bytes: u64,
    /// Mean resident set of it and its descendants, if it was watched and ran long enough.
    pub mean_bytes: Option<u64>,
    /// Page faults of it and of every descendant that was waited for: those that needed no disk, and those that did.
    pub faults: [u64; 2],
}

impl Exited {
    /// The last line of what it said, but for the hint that Rust has behind a panic.
    pub fn last_line(&self) -> String {
        let hint = |line: &&str| line.starts_with("note: run with `RUST_BACKTRACE");
        self.stderr.lines().rfind(|line| !hint(line)).unwrap_or("no message").to_owned()
    }
}

/// How a process ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(Exited),
    /// It had so long, and was ended.
    TimedOut(Duration),
}

/// Takes back what whoever started this process did with signals: a parent may have ignored or blocked those that tell of
/// a child's end or of a timer's, and both survive `exec`. Samples begin as this process does.
pub fn usual_signals() {
    for signal in [Signal::SIGCHLD, Signal::SIGALRM] {
        // SAFETY: the usual action runs no code of this process.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.expect("it may be handled");
    }
    SigSet::empty().thread_set_mask().expect("no set of signals is refused");
}

/// Starts a process and waits for its end.
pub fn observe(job: &Job) -> Result<Ended, String> {
    Started::new(job, None)?.observe()
}

/// A process that was started and has not been waited for.
pub struct Started<'a> {
    job: &'a Job,
    child: Child,
    report: File,
}

impl<'a> Started<'a> {
    /// Starts a process through the launcher, with its standard input at `seat`, whose other end tells it what to do, if
    /// there is one.
    pub fn new(job: &'a Job, seat: Option<OwnedFd>) -> Result<Started<'a>, String> {
        let report = memfd_create("launcher's report", MFdFlags::MFD_CLOEXEC);
        let report = File::from(report.map_err(|error| format!("memfd: {error}"))?);
        let child = job.command(&report, seat)?.spawn().map_err(|error| format!("cannot start a worker: {error}"))?;
        Ok(Started { job, child, report })
    }

    /// The group of the process and of all that it starts, to be killed.
    pub fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits for its end. What it leaves behind in its group is killed.
    pub fn observe(self) -> Result<Ended, String> {
        let group = self.group();
        let Started { job, mut child, mut report } = self;
        let (id, over) = (child.id(), AtomicBool::new(false));
        let (ended, [mut stdout, mut stderr]) = heard(&mut child, |child| {
            std::thread::scope(|scope| {
                let watch = job.watched.then(|| scope.spawn(|| resident::mean_bytes(id, &over)));
                // A worker that died at once closes the pipe; its exit says why.
                drop(child.stdin.take().map(|mut pipe| pipe.write_all(&job.input)));
                let in_time = wait(child, group, job.deadline);
                over.store(true, Relaxed);
                let mean = watch.and_then(|watch| {
                    watch.thread().unpark();
                    watch.join().ok().flatten()
                });
                in_time.map(|in_time| (in_time, mean))
            })
        });
        let (in_time, mean_bytes) = ended?;
        if !in_time {
            return Ok(Ended::TimedOut(job.deadline));
        }
        if let Some([out, err]) = &job.files {
            let contents = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
            (stdout, stderr) = (contents(out)?, contents(err)?);
        }
        let mut said = String::new();
        report
            .rewind()
            .and_then(|()| report.read_to_string(&mut said))
            .map_err(|error| format!("cannot read the launcher's report: {error}"))?;
        match serde_json::from_str::<Seen>(&said) {
            Ok(seen) => Ok(Ended::Exited(Exited {
                status: ExitStatus::from_raw(seen.status),
                stdout,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
                wall_ns: seen.wall_ns,
                peak_bytes: seen.peak_bytes,
                mean_bytes,
                faults: [seen.minor_faults, seen.major_faults],
            })),
            Err(_) if said.is_empty() => Err("the launcher of the worker was killed".into()),
            Err(_) => Err(said),
        }
    }
}

/// Reads what a child prints and says while `wait` waits for its end; then kills what it leaves behind in its group, of
/// which it is the leader.
pub fn heard<T>(child: &mut Child, wait: impl FnOnce(&mut Child) -> T) -> (T, [Vec<u8>; 2]) {
    let group = Pid::from_raw(child.id() as i32);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read(out.as_mut().map(|pipe| pipe as &mut dyn Read)));
        let stderr = scope.spawn(|| read(err.as_mut().map(|pipe| pipe as &mut dyn Read)));
        let waited = wait(child);
        // Nobody is left, or what was left would hold the pipes open.
        end(group, Signal::SIGKILL);
        (waited, [stdout, stderr].map(|handle| handle.join().unwrap_or_default()))
    })
}

/// Waits for the launcher, and ends its group if the deadline passes. Whether it did not.
fn wait(child: &mut Child, group: Pid, deadline: Duration) -> Result<bool, String> {
    let fail = |error: std::io::Error| format!("cannot wait for a worker: {error}");
    if child.wait_timeout(deadline).map_err(fail)?.is_some() {
        return Ok(true);
    }
    end(group, Signal::SIGTERM);
    if child.wait_timeout(GRACE).map_err(fail)?.is_none() {
        end(group, Signal::SIGKILL);
        child.wait().map_err(fail)?;
    }
    Ok(false)
}

/// Ends a process that hangs, with its group, at once.
pub fn kill(group: Pid) {
    end(group, Signal::SIGKILL);
}

/// Sends a signal to the group. Where nobody is left in it, there is nothing to do.
fn end(group: Pid, signal: Signal) {
    let _: Result<(), nix::errno::Errno> = killpg(group, signal);
}

/// What can be read before the worker dies is worth showing.
fn read(pipe: Option<&mut dyn Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(pipe.map(|pipe| pipe.read_to_end(&mut bytes)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far longer than a script takes, so that a busy host does not decide.
    const LONG: Duration = Duration::from_secs(120);

    fn shell(script: &str) -> Job {
        Job::new("/bin/sh", LONG).argument("-c").argument(script)
    }

    fn exited(job: &Job) -> Exited {
        match observe(job).unwrap() {
            Ended::Exited(exited) => exited,
            Ended::TimedOut(_) => panic!("it did not end"),
        }
    }

    /// 256 MiB of this process do not appear in a child, and would without the launcher.
    #[test]
    fn the_memory_of_the_harness_is_not_the_samples() {
        let large = std::hint::black_box(vec![1u8; 256 << 20]);
        let peak = exited(&Job::new("/bin/true", LONG)).peak_bytes;
        assert!(peak > 0 && peak < 64 << 20, "{peak} bytes, beside {}", large.len());
        assert!(Command::new("/bin/true").status().unwrap().success());
        let direct = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
        assert!(direct << 10 >= 256 << 20, "the kernel no longer does this: {direct} KiB");
    }

    /// A child of the process holds 64 MiB for most of its time; the page faults of its pages are counted.
    #[test]
    fn the_mean_resident_set_and_the_page_faults_are_those_of_all_descendants() {
        let hold = "python3 -c 'x = bytearray(64 << 20); import time; time.sleep(1)'; true";
        if Command::new("python3").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "python3 is needed");
            println!("not tested: the mean resident set, without python3");
            return;
        }
        let seen = exited(&shell(hold).watched());
        let mean = seen.mean_bytes.expect("it ran for a second");
        assert!(((32 << 20)..(128 << 20)).contains(&mean), "{mean} bytes");
        assert!(seen.faults[0] > (16 << 10), "{:?}: 64 MiB are 16 384 pages", seen.faults);
        assert_eq!(exited(&shell(hold)).mean_bytes, None, "nobody watched");
    }

    /// As those of a block do.
    #[test]
    fn a_process_has_no_report_of_one_that_was_started_before() {
        let long = shell("exec sleep 600");
        let other = Started::new(&long, None).unwrap();
        let seen = exited(&shell("ls -l /proc/self/fd"));
        kill(other.group());
        assert!(other.observe().is_err());
        let open = String::from_utf8(seen.stdout).unwrap();
        assert!(open.contains("-> ") && !open.contains("report"), "{open}");
    }

    #[test]
    fn a_process_that_crashes_hangs_or_is_not_there_is_told_apart() {
        assert_eq!(exited(&shell("kill -SEGV $$")).status.signal(), Some(11));
        let said = "echo first >&2; echo last >&2; echo 'note: run with `RUST_BACKTRACE=1` for more' >&2; exit 3";
        assert_eq!(exited(&shell(said)).last_line(), "last");
        let short = Job { deadline: Duration::from_millis(500), ..shell("exec sleep 600") };
        assert!(matches!(observe(&short), Ok(Ended::TimedOut(time)) if time == short.deadline));
        assert!(observe(&Job::new("/no/such", LONG)).unwrap_err().contains("/no/such: cannot start"));
    }

    /// A child that keeps the pipes open ends with its group.
    #[test]
    fn nothing_outlives_the_process() {
        let begin = std::time::Instant::now();
        let said = exited(&shell("sleep 600 & echo $!")).stdout;
        assert!(begin.elapsed() < LONG);
        let pid: i32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
        for _ in 0..600 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if !stat.contains("(sleep)") || stat.contains(") Z ") {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{pid} still sleeps");
    }

    #[test]
    fn the_environment_is_the_jobs_alone_and_what_is_preloaded_reaches_it() {
        let job = Job::new("/usr/bin/env", LONG).environment([("A", "1"), ("LD_PRELOAD", "")]);
        let said = String::from_utf8(exited(&job).stdout).unwrap();
        let mut lines: Vec<_> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=1", "LD_PRELOAD="]);
    }
}
