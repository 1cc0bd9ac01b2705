//! The row that needs a debugger: how much it writes when it dumps a process.

use super::heap::Heap;
use nix::libc;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Name of the row.
pub const CASE: &str = "core";
/// The debugger may write so much. A larger core counts as this.
const MOST_MIB: u64 = 2048;

/// In the process to be dumped: says that it is ready and waits to be killed.
pub fn wait() -> Result<f64, String> {
    crate::output::print("ready\n").map_err(|failure| failure.to_string())?;
    loop {
        // SAFETY: no preconditions.
        unsafe { libc::pause() };
    }
}

/// The size of a core of a process on this allocator, in MiB.
pub fn measure(heap: &Heap) -> Result<f64, String> {
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

fn dump(process: u32) -> Result<f64, String> {
    let path = std::env::temp_dir().join(format!("perseq-limits-core-{process}"));
    let generate = format!("generate-core-file {}", path.display());
    let mut gdb = Command::new("timeout");
    gdb.args(["120", "gdb", "-nx", "-batch", "-p", &process.to_string(), "-ex", &generate]);
    gdb.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env_remove("LD_PRELOAD");
    let bounded = || {
        let limit = libc::rlimit { rlim_cur: MOST_MIB << 20, rlim_max: MOST_MIB << 20 };
        // SAFETY: the structure is read only.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) };
        Ok(())
    };
    // SAFETY: one system call.
    unsafe { gdb.pre_exec(bounded) };
    let output = gdb.output().map_err(|error| format!("timeout: {error}"))?;
    let size = std::fs::metadata(&path).map(|file| file.len());
    drop(std::fs::remove_file(&path));
    match (output.status.code(), size) {
        (Some(127), _) => Err("gdb is not installed".into()),
        (_, Ok(bytes)) if bytes > 0 => Ok(bytes as f64 / 1_048_576.0),
        _ => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no core").to_owned()),
    }
}
