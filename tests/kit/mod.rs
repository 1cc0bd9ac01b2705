//! Tests of a whole process, in a process of their own.
//!
//! The mode is decided once per process, so a test that is about modes runs its own binary again, with one
//! test selected and a role in the environment, and judges what came out:
//!
//! ```text
//! #[test] fn name() ──no role──► for each mode: this binary again, PERSEQ_MODE, role ──► exit status, output
//!         └──────────role──────► the body, after a check that the mode is the one asked for
//! ```
//!
//! A child that does not end is killed with everything it started, and the test fails: a hang is a bug.
//!
//! # Environment
//!
//! * `PERSEQ_TEST_SECONDS`: how long each run of a torture lasts. Small by default; hours for a soak.
//! * `CI`: what cannot be tested here is a failure, unless `PERSEQ_CI_ALLOWS` names it (see `absence`).
//! * `PERSEQ_TEST_SEED`: the seed of every random choice, which a failure prints.
#![allow(dead_code)] // each test binary uses a part of the kit

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
pub mod crash;
pub mod object;
pub mod probe;
pub mod random;
pub mod seccomp;
pub mod torture;

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

#[allow(unused_imports)] // as above
pub use absence::{is_glibc, is_installed, not_tested};
use perseq::{ActiveMode, Mode, Reason};

/// What a limit of `setrlimit` is on, of which C libraries have their own types.
#[cfg(target_env = "gnu")]
pub type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
pub type Resource = libc::c_int;

const ROLE: &str = "PERSEQ_TEST_ROLE";

/// The part this process plays, if a test of this binary started it for one.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// How long a torture runs: `usual`, or what `PERSEQ_TEST_SECONDS` says.
pub fn duration(usual: f64) -> Duration {
    let seconds = std::env::var("PERSEQ_TEST_SECONDS").map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("PERSEQ_TEST_SECONDS={text}: expected seconds, as in 0.5 or 3600"))
    });
    Duration::from_secs_f64(seconds)
}

/// Runs `body` in a process of each mode. `test` is the full name of the calling test.
pub fn in_every_mode(test: &str, body: impl FnOnce()) {
    if role().is_none() {
        for mode in Mode::ALL {
            Child::of(test, "in every mode").mode(mode).run().passed();
        }
    } else if as_requested() {
        body();
    }
}

/// Asserts that this process runs in the mode `PERSEQ_MODE` asks for. False, and said on standard error, if
/// this kernel cannot: that is asked of the kernel here, so that perseq cannot excuse itself.
pub fn as_requested() -> bool {
    let asked = std::env::var("PERSEQ_MODE").expect("a child has PERSEQ_MODE");
    let ActiveMode { requested, active, reason, .. } = perseq::active_mode();
    assert_eq!(requested.name(), asked, "the mode PERSEQ_MODE asks for");
    if active == requested {
        assert_eq!(reason, Reason::AsRequested);
        await_harness();
        return true;
    }
    let excuse = match reason {
        Reason::NoRseq(_) => !kernel::has_rseq(),
        Reason::NoFence(_) => !kernel::has_rseq_fence(),
        Reason::NoMmCid => !kernel::has_mm_cid(),
        _ => false,
    };
    assert!(excuse, "{requested} was asked for and this kernel can do it, but the mode is {active}: {reason}");
    not_tested(absent(reason), format_args!("mode {requested}"), reason);
    false
}

/// What a mode needed that was replaced for this reason.
pub fn absent(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRseq(_) => "rseq",
        Reason::NoFence(_) => "membarrier",
        Reason::NoMmCid => "mm-cid",
        _ => panic!("{reason}: nothing was absent"),
    }
}

/// Waits until the process's first thread, the test harness's, is asleep waiting for the test: what it
/// allocates before that would be counted as the test's.
pub fn await_harness() {
    // SAFETY: both calls have no preconditions.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    if process == thread {
        return; // the harness runs tests on its own thread
    }
    let mut asleep = 0;
    while asleep < 3 {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{process}/stat")).expect("/proc is mounted");
        asleep = if stat.contains(") S ") { asleep + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the kernel can do, asked without perseq's code.
pub mod kernel {
    /// Has an rseq system call: a registration of nothing is invalid, not unknown or forbidden.
    pub fn has_rseq() -> bool {
        // SAFETY: a length of 0 is refused before the null pointer is looked at.
        let answer = unsafe { libc::syscall(libc::SYS_rseq, 0, 0, 0, 0) };
        answer == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
    }

    /// Has fences for rseq (Linux 5.10).
    pub fn has_rseq_fence() -> bool {
        // SAFETY: membarrier takes integers.
        let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
        commands > 0 && commands & i64::from(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) != 0
    }

    /// Gives names to mappings (Linux 5.17, with `CONFIG_ANON_VMA_NAME`).
    pub fn has_names() -> bool {
        let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        let bytes = super::page_bytes() as usize;
        // SAFETY: a mapping of our own, which is gone afterwards, and a string.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
            let name = c"asked".as_ptr();
            let answer = libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, page, bytes, name);
            libc::munmap(page, bytes);
            answer == 0
        }
    }

    /// Fills `mm_cid` (Linux 6.3): the rseq area it knows of is 28 bytes or more.
    pub fn has_mm_cid() -> bool {
        const AT_RSEQ_FEATURE_SIZE: u64 = 27;
        // SAFETY: getauxval has no preconditions.
        unsafe { libc::getauxval(AT_RSEQ_FEATURE_SIZE) >= 28 }
    }
}

/// This test binary, about to be run again.
pub struct Child {
    command: Command,
    what: String,
}

impl Child {
    /// To run the test called `test` alone, as `role`.
    pub fn of(test: &str, role: &str) -> Child {
        let this = std::env::current_exe().expect("the path of this binary");
        Child::with(Command::new(this), test, role)
    }

    /// As [`Child::of`], under a program that runs another, such as valgrind.
    pub fn under(mut program: Command, test: &str, role: &str) -> Child {
        program.arg(std::env::current_exe().expect("the path of this binary"));
        Child::with(program, test, role)
    }

    fn with(mut command: Command, test: &str, role: &str) -> Child {
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
        for option in perseq::options() {
            command.env_remove(option.name);
        }
        command.env_remove("GLIBC_TUNABLES");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Child { command, what: format!("{test} as {role}") }
    }

    /// In this mode.
    pub fn mode(self, mode: Mode) -> Child {
        self.env("PERSEQ_MODE", mode.name())
    }

    /// With this in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Child {
        self.command.env(name, value);
        self.what += &format!(" {name}={value}");
        self
    }

    /// Without this in its environment.
    pub fn without(mut self, name: &str) -> Child {
        self.command.env_remove(name);
        self.what += &format!(" without {name}");
        self
    }

    /// With `prepare` done between fork and exec.
    ///
    /// # Safety
    ///
    /// * `prepare` is async-signal-safe: no allocation, no lock.
    pub unsafe fn prepared(
        mut self,
        what: &str,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Child {
        self.what += &format!(" {what}");
        // SAFETY: by our own contract.
        unsafe { self.command.pre_exec(prepare) };
        self
    }

    /// With a filter that refuses system calls.
    pub fn refusing(self, refusals: &'static [seccomp::Refusal]) -> Child {
        // SAFETY: `install` is two system calls over memory on its stack.
        unsafe { self.prepared(&format!("{refusals:?}"), || seccomp::install(refusals)) }
    }

    /// With a limit on address space, in bytes.
    pub fn address_space(self, bytes: u64) -> Child {
        let limit = move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: reads a structure of ours.
            match unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: one system call.
        unsafe { self.prepared(&format!("RLIMIT_AS {bytes}"), limit) }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let limit = Duration::from_secs(150) + duration(0.0) * 3;
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.what));
        let out = read_all(child.stdout.take().expect("piped"));
        let err = read_all(child.stderr.take().expect("piped"));
        let start = Instant::now();
        let (status, hung) = loop {
            if let Some(status) = child.try_wait().expect("our child") {
                break (status, false);
            }
            if start.elapsed() > limit {
                // SAFETY: kill has no preconditions; the group is the child's own.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                break (child.wait().expect("our child"), true);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let join = |thread: std::thread::JoinHandle<String>| thread.join().expect("a reader does not panic");
        let outcome = Outcome { what: self.what, status, stdout: join(out), stderr: join(err) };
        assert!(!hung, "killed after {limit:?}: {outcome}");
        outcome
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe of ours");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What a child left.
pub struct Outcome {
    what: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts that the test ran and passed. What it could not test is passed on.
    pub fn passed(self) -> Outcome {
        assert!(self.status.success() && self.stdout.contains("1 passed"), "{self}");
        for line in self.stderr.lines().filter(|line| line.starts_with("not tested: ")) {
            drop(writeln!(std::io::stderr(), "{line}"));
        }
        self
    }

    /// Asserts that the process aborted, with one line of perseq's that contains `text`.
    pub fn aborted_saying(self, text: &str) -> Outcome {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{self}");
        let lines: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("perseq: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(text), "expected one line with {text:?}: {self}");
        self
    }

    /// Asserts that the handler of [`crash::report_crashes`] ran to its end.
    pub fn reported(self) -> Outcome {
        assert!(self.stderr.lines().any(|line| line == crash::REPORTED), "no crash report: {self}");
        self
    }

    /// Asserts that the process printed `text`.
    pub fn said(self, text: &str) -> Outcome {
        assert!(self.stdout.contains(text), "expected {text:?}: {self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { what, status, stdout, stderr } = self;
        write!(f, "{what}: {status}\n--- its output\n{stdout}--- its errors\n{stderr}---")
    }
}

/// The size class that objects of `size` bytes aligned to `align` have. `None`: they are large.
pub fn class_of(size: usize, align: usize) -> Option<perseq::ClassStats> {
    let (least, mut found) = (size.next_multiple_of(align) as u64, None);
    perseq::for_each_class(&mut |class| {
        if class.size >= least && class.size.is_multiple_of(align as u64) {
            found.get_or_insert(*class);
        }
    });
    found
}

/// Resident bytes of this process.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("statm's second field");
    pages * page_bytes()
}

/// Bytes of a page of this kernel's.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The CPUs this process may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a plain bit set, of which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours and has the size given.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) }, 0);
    // SAFETY: the index is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Lets the calling thread run on `cpus` only.
pub fn run_on(cpus: &[usize]) {
    // SAFETY: a plain bit set, of which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the index came from a set of this size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` has the size given. A CPU may have gone offline meanwhile: then nothing changes, which is fine.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}

/// Forks; the child runs `body` and exits. Returns the child's process id.
///
/// The child has this many seconds before an alarm ends it: a hang becomes a failure of [`reap`].
pub fn fork(seconds: u32, body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child runs `body`, which does no more than an allocator must allow, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: alarm has no preconditions.
        unsafe { libc::alarm(seconds) };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends the process at once; nothing of the parent's is run twice.
        unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) };
    }
    child
}

/// Waits for a child of [`fork`] and asserts that its body returned.
pub fn reap(child: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours to be written.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        if waited == child {
            break;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
    }
    let status = ExitStatus::from_raw(status);
    assert!(status.success(), "a forked child ended with {status} (SIGALRM: it hung)");
}
