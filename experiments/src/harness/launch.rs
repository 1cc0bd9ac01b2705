//! The launcher: a tiny process between the harness and a sample.
//!
//! The kernel's high-water mark of the resident set survives `exec`, and a new process takes it over from the one that
//! made it. A sample started by the harness itself would report the harness's own memory as its peak. So the harness
//! starts this binary once more, and that process, a few pages large, starts the sample, waits for it and writes down
//! how it ended. If the launcher ends first, because the harness did, the kernel ends the sample.

use crate::addresses;
use crate::beside::preloadable;
use nix::libc;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The argument that makes this binary a launcher: `launch FD PROGRAM ARGUMENTS`.
pub const WORD: &str = "launch";
/// The variable that holds what the sample preloads, so that the launcher does not.
pub const PRELOAD: &str = "LAUNCH_PRELOAD";

/// How a sample ended, as the launcher saw it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// Status as `wait4` gives it.
    pub status: i32,
    /// From the start of the process to its end.
    pub wall_ns: u64,
    /// Largest resident set of the process and of every descendant that was waited for.
    pub peak_bytes: u64,
    /// Page faults of these that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
}

/// Becomes the launcher if the command line says so.
pub fn if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == WORD) {
        std::process::exit(launch(arguments));
    }
}

fn launch(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let descriptor = arguments.next().and_then(|text| text.to_str()?.parse::<RawFd>().ok());
    let (Some(descriptor), Some(program)) = (descriptor, arguments.next()) else {
        eprintln!("perseq {WORD}: expected a descriptor and a program; perseq itself starts this");
        return 2;
    };
    // SAFETY: asking for a flag of a number that may not be a descriptor has no effect.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        eprintln!("perseq {WORD}: {descriptor} is no descriptor; perseq itself starts this");
        return 2;
    }
    // SAFETY: the harness opened the descriptor for this process alone, and nobody else here uses it.
    let mut report = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let said = match start(&program, arguments) {
        Ok(seen) => serde_json::to_string(&seen).unwrap_or_default(),
        Err(error) => format!("{}: cannot start: {error}", program.to_string_lossy()),
    };
    i32::from(report.write_all(said.as_bytes()).is_err())
}

fn start(program: &OsString, arguments: impl Iterator<Item = OsString>) -> std::io::Result<Seen> {
    let mut command = Command::new(program);
    command.args(arguments).env_remove(PRELOAD).env_remove(addresses::VARIABLE);
    let undrawn = std::env::var_os(addresses::VARIABLE).is_some();
    if let Some(library) = std::env::var_os(PRELOAD) {
        let library = preloadable(Path::new(&library)).map_err(std::io::Error::other)?;
        command.env("LD_PRELOAD", library);
    }
    die_with_the_parent();
    // A sample that is asked to end may take its time; the launcher waits for it.
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    // SAFETY: the function calls only what is safe between fork and exec: prctl, personality and signal.
    unsafe {
        command.pre_exec(move || {
            die_with_the_parent();
            if undrawn {
                // A worker finds out whether that was refused, and says so.
                drop(addresses::undrawn());
            }
            libc::signal(libc::SIGTERM, libc::SIG_DFL);
            // The harness ignores it for its own files.
            libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
            Ok(())
        })
    };
    let begin = Instant::now();
    let child = command.spawn()?;
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the child is ours and nobody else waits for it; both places are ours to write.
        if unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) } >= 0 {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let wall_ns = begin.elapsed().as_nanos() as u64;
    Ok(Seen {
        status,
        wall_ns,
        peak_bytes: (usage.ru_maxrss as u64) << 10,
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
    })
}

fn die_with_the_parent() {
    // SAFETY: sets an attribute of this process and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// The binary of the unit tests is a launcher as well, before its own `main` begins.
#[cfg(test)]
#[used]
// SAFETY: the loader calls the function once, after the standard library has seen the arguments.
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = {
    extern "C" fn early() {
        if_asked();
    }
    early
};
