//! What another process does to this one: stopping it, and tracing its threads as a debugger does.
//!
//! The other process is this program again (`perseq torture-actor`), on the C library's malloc. It writes a byte for
//! each thing done, and ends when its standard input does.

use crate::failure::Failure;
use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere, refused};
use crate::torture::order::Order;
use crate::torture::random::Random;
use nix::libc;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The whole process stops and goes on.
pub const STOPS: Force =
    Force { name: "stops", what: "SIGSTOP and SIGCONT", takes_memory: false, absent: anywhere, act: stops };

/// Its threads are traced, stepped and left again.
pub const TRACES: Force = Force {
    name: "traces",
    what: "threads attached by ptrace, stepped and detached",
    takes_memory: false,
    absent: traces_absent,
    act: traces,
};

fn stops(acting: &mut Acting) {
    directed(acting, "stops");
}

fn traces(acting: &mut Acting) {
    directed(acting, "traces");
}

/// Starts the other process and counts what it does.
fn directed(acting: &mut Acting, what: &str) {
    // SAFETY: integers. Where only ancestors may trace (Yama), this lets anyone; elsewhere it fails, and may.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    let mut command = Command::new("/proc/self/exe");
    command.args(["torture-actor", what, &std::process::id().to_string(), &acting.random.next().to_string()]);
    command.env_remove("LD_PRELOAD").stdin(Stdio::piped()).stdout(Stdio::piped());
    let end_with_us = || {
        // SAFETY: integers. The storm's process may be killed; what acts on it ends with it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(end_with_us) };
    let mut actor = match command.spawn() {
        Ok(actor) => actor,
        Err(error) => fault(format_args!("a process that acts on this one: {error}")),
    };
    let (stdin, stdout) = (actor.stdin.take(), actor.stdout.take());
    let Some(mut said) = stdout else { fault(format_args!("a process without its output")) };
    let mut bytes = [0; 64];
    while acting.goes_on() {
        match said.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => (0..count).for_each(|_| acting.happened()),
        }
    }
    drop(stdin);
    drop(said);
    match actor.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => fault(format_args!("the process that {what} this one ended with {status}")),
        Err(error) => fault(format_args!("waiting for the process that {what} this one: {error}")),
    }
}

fn traces_absent(_: &Order) -> Option<String> {
    // SAFETY: the child only waits to be killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: plain integers.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child, 0, 0) };
    let reason = if seized == 0 { None } else { refused("ptrace") };
    // SAFETY: a child of ours; its status is not asked for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    reason
}

/// `perseq torture-actor WHAT PROCESS SEED`.
pub fn actor(what: &str, process: i32, seed: u64) -> Result<(), Failure> {
    let act = match what {
        "stops" => stop,
        "traces" => trace,
        _ => return Err(Failure::usage(format!("torture-actor {what}: expected stops or traces"))),
    };
    let mut random = Random::new(seed, 0);
    let mut out = std::io::stdout();
    // Until the other side closes our input, or does not listen any more.
    while !input_ended() {
        if act(process, &mut random) && out.write_all(b".").and_then(|()| out.flush()).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn input_ended() -> bool {
    let mut input = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure of ours.
    unsafe { libc::poll(&mut input, 1, 0) != 0 }
}

fn stop(process: i32, random: &mut Random) -> bool {
    // SAFETY: the process is our parent; it is continued whatever happens.
    let stopped = unsafe { libc::kill(process, libc::SIGSTOP) } == 0;
    std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
    // SAFETY: as above.
    unsafe { libc::kill(process, libc::SIGCONT) };
    std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
    stopped
}

/// One thread of the process: stopped, sometimes stepped by single instructions, and left.
fn trace(process: i32, random: &mut Random) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let threads: Vec<i32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    if threads.is_empty() {
        return false;
    }
    // A thread that has ended meanwhile is not there to be traced.
    let Some(mut traced) = Traced::attach(process, random.of(&threads), random.once_in(2)) else { return false };
    if random.once_in(3) {
        // Few: a sequence that is stepped is aborted by each step, so it would never end.
        for _ in 0..random.below(12) {
            if !traced.resume(libc::PTRACE_SINGLESTEP) {
                return true;
            }
        }
    }
    traced.leave()
}

/// After so long a thread is sent SIGSTOP again: somebody's SIGCONT may have taken that of attaching away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A traced thread that is stopped.
struct Traced {
    process: i32,
    thread: i32,
    /// A signal of the program's that stopped it, which it must not lose. 0: none.
    signal: usize,
}

impl Traced {
    /// By `PTRACE_ATTACH`, or by the newer `PTRACE_SEIZE` and `PTRACE_INTERRUPT`.
    fn attach(process: i32, thread: i32, seize: bool) -> Option<Traced> {
        let mut traced = Traced { process, thread, signal: 0 };
        let attached = match seize {
            true => traced.request(libc::PTRACE_SEIZE) && traced.request(libc::PTRACE_INTERRUPT),
            false => traced.request(libc::PTRACE_ATTACH),
        };
        let mut stopped = (attached && traced.wait()?).then_some(traced)?;
        // Attaching sends SIGSTOP. Any other stop came before it, and left behind it would stop the program.
        while !seize && !stopped.is_stopped_by_us() {
            if !stopped.resume(libc::PTRACE_CONT) {
                return None;
            }
        }
        Some(stopped)
    }

    fn request(&self, request: libc::c_uint) -> bool {
        // SAFETY: the requests used here read and write no memory of either process.
        unsafe { libc::ptrace(request, self.thread, 0_usize, self.signal) == 0 }
    }

    /// Lets it run to its next stop. False: it has ended.
    fn resume(&mut self, request: libc::c_uint) -> bool {
        self.request(request) && self.wait() == Some(true)
    }

    /// Waits for a stop. Some(false) or None: it has ended.
    fn wait(&mut self) -> Option<bool> {
        let mut asked = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: `status` is ours to write.
            let waited = unsafe { libc::waitpid(self.thread, &mut status, libc::__WALL | libc::WNOHANG) };
            if waited == self.thread && libc::WIFSTOPPED(status) {
                let signal = libc::WSTOPSIG(status);
                self.signal = if matches!(signal, libc::SIGSTOP | libc::SIGTRAP) { 0 } else { signal as usize };
                return Some(true);
            }
            if waited != 0 {
                return Some(false);
            }
            if asked.elapsed() > PATIENCE {
                asked = Instant::now();
                // SAFETY: integers; the thread is traced by us, so it stops for us.
                unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, libc::SIGSTOP) };
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn is_stopped_by_us(&self) -> bool {
        self.signal == 0 && !self.is_pending(libc::SIGSTOP)
    }

    /// A signal waits for this thread alone.
    fn is_pending(&self, signal: i32) -> bool {
        let path = format!("/proc/{}/task/{}/status", self.process, self.thread);
        let text = fs::read_to_string(path).unwrap_or_default();
        let pending = text.lines().find_map(|line| line.strip_prefix("SigPnd:")).map(str::trim);
        pending.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
    }

    /// Detaches. What we sent and what has not come yet would end or stop the program if it were left: the trap of a
    /// step before which another stop came, and a SIGSTOP.
    fn leave(mut self) -> bool {
        while self.is_pending(libc::SIGTRAP) || self.is_pending(libc::SIGSTOP) {
            if !self.resume(libc::PTRACE_CONT) {
                return true;
            }
        }
        self.request(libc::PTRACE_DETACH)
    }
}
