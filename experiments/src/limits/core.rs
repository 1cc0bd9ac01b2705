//! The row that needs a debugger: how much it writes when it dumps a process.

use super::heap::Heap;
use super::number::{Measured, Number};
use super::rlimit;
use nix::libc;
use nix::sys::resource::Resource;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// Name of the row.
pub const CASE: &str = "core";
/// The debugger may write so much: a larger core is only known to be larger.
const MOST_MIB: u64 = 2048;
/// The debugger may take so long.
const SECONDS: u64 = 120;

/// In the process to be dumped: says that it is ready and waits to be killed.
pub fn wait() -> Result<f64, String> {
    crate::output::print("ready\n").map_err(|failure| failure.to_string())?;
    loop {
        // SAFETY: no preconditions.
        unsafe { libc::pause() };
    }
}

/// The size of a core of a process on this allocator, in MiB.
pub fn measure(heap: &Heap) -> Number {
    let mut command = heap.command(&["limits-probe", CASE]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    let mut ready = [0; 6];
    let read = child.stdout.as_mut().map(|pipe| pipe.read_exact(&mut ready));
    let size = match read {
        Some(Ok(())) => dump(child.id()),
        _ => Err("the process to dump did not start".into()),
    };
    drop(child.kill());
    drop(child.wait());
    size
}

fn dump(process: u32) -> Number {
    let path = std::env::temp_dir().join(format!("perseq-limits-core-{process}"));
    let generate = format!("generate-core-file {}", path.display());
    let mut gdb = Command::new("timeout");
    gdb.args([&SECONDS.to_string(), "gdb", "-nx", "-batch", "-p", &process.to_string(), "-ex", &generate]);
    gdb.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env_remove("LD_PRELOAD");
    let bounded = || rlimit::set(Resource::RLIMIT_FSIZE, MOST_MIB << 20);
    // SAFETY: one system call.
    unsafe { gdb.pre_exec(bounded) };
    let output = gdb.output().map_err(|error| format!("timeout: {error}"))?;
    let size = std::fs::metadata(&path).map(|file| file.len());
    drop(std::fs::remove_file(&path));
    judged(output.status, size.unwrap_or(0), &String::from_utf8_lossy(&output.stderr))
}

/// What a debugger's end and the file it left say of the core.
fn judged(status: ExitStatus, bytes: u64, said: &str) -> Number {
    // gdb ends with 0 where the disk is full: it only says so.
    let torn =
        said.lines().find(|line| ["writing note section", "cannot close"].iter().any(|sign| line.contains(sign)));
    match status.code() {
        Some(127) => Err("gdb is not installed".into()),
        _ if bytes >= MOST_MIB << 20 => Ok(Measured { number: MOST_MIB as f64, at_least: true }),
        // What `timeout` says where it ended the program.
        Some(124) => Err(format!("gdb was ended after {SECONDS} s, with {} MiB of the core written", bytes >> 20)),
        Some(0) if bytes > 0 => match torn {
            Some(why) => Err(format!("gdb did not write all of the core: {why}")),
            None => Ok(Measured::exactly(bytes as f64 / 1_048_576.0)),
        },
        _ => Err(said.lines().last().map_or_else(|| format!("no core: gdb: {status}"), str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// The core of a debugger that was stopped is no core, and one at the limit has no size but a bound.
    #[test]
    fn a_core_that_was_cut_is_no_size() {
        let whole = 700 << 20;
        let of = |code: i32, bytes| judged(ExitStatus::from_raw(code << 8), bytes, "first\nlast");
        assert_eq!(of(0, whole), Ok(Measured::exactly(700.0)));
        assert!(of(124, whole).unwrap_err().contains("after 120 s"));
        assert!(of(124, 0).unwrap_err().contains("after 120 s"));
        assert_eq!(of(0, 2048 << 20), Ok(Measured { number: 2048.0, at_least: true }));
        assert_eq!(of(1, 2048 << 20).unwrap().text(), "at least 2048");
        assert_eq!(of(127, 0), Err("gdb is not installed".into()));
        assert_eq!(of(1, 5), Err("last".into()));
        assert_eq!(of(0, 0), Err("last".into()));
        let full = "warning: writing note section (No space left on device)\nlast";
        let torn = judged(ExitStatus::from_raw(0), 5 << 20, full).unwrap_err();
        assert!(torn.contains("not write all") && torn.contains("No space"), "{torn}");
        // By a signal.
        assert!(judged(ExitStatus::from_raw(11), 5, "").unwrap_err().contains("signal: 11"));
    }
}
