//! The process that measures one row: started on the allocator it is about, under the limit of the row.

use super::case::{self, Case};
use super::heap::Heap;
use crate::failure::Failure;
use crate::output;
use nix::libc;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;
use wait_timeout::ChildExt;

/// After this it counts as hung. Growing 40,000 blocks takes seconds, or minutes where they are copied on a busy host.
const DEADLINE: Duration = Duration::from_secs(600);

/// `perseq limits-probe CASE`: prints the number.
pub fn main(name: &str) -> Result<(), Failure> {
    let case = case::find(name).ok_or_else(|| Failure::usage(format!("limits-probe {name}: no such row")))?;
    let number = (case.measure)().map_err(Failure::host)?;
    // Threads may be waiting for ever, and memory may be gone: say it and end, no more.
    output::print(&format!("{number}\n"))?;
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) }
}

/// Measures a row on an allocator. An error is what the process said, or how it ended.
pub fn ask(case: &Case, heap: &Heap) -> Result<f64, String> {
    let mut command = heap.command(&["limits-probe", case.name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some((kind, bytes)) = case.limit {
        let lower = move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: the structure is read only.
            let set = unsafe { libc::setrlimit(kind, &limit) };
            if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: one system call.
        unsafe { command.pre_exec(lower) };
    }
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    let status = child.wait_timeout(DEADLINE).map_err(|error| format!("waiting for a process: {error}"))?;
    // SAFETY: the group is the child's own.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
    let Some(status) = status else {
        drop(child.wait());
        return Err(format!("hung for {} s", DEADLINE.as_secs()));
    };
    let (mut said, mut complained) = (String::new(), String::new());
    drop(child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut said)));
    drop(child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut complained)));
    match said.trim().parse() {
        Ok(number) if status.success() => Ok(number),
        _ => {
            let reason = complained.lines().last().unwrap_or("").trim_start_matches("perseq: ");
            Err(if reason.is_empty() { status.to_string() } else { without_folders(reason) })
        }
    }
}

/// Of the files that a library was built from, their names: the table is not about this machine's folders.
fn without_folders(reason: &str) -> String {
    let short = |word: &str| match word.rsplit_once('/') {
        Some((folder, name)) if folder.starts_with('/') && !folder.starts_with("/proc") => name.to_owned(),
        _ => word.to_owned(),
    };
    reason.split_whitespace().map(short).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_no_folders() {
        let said = "/home/me/tcmalloc/arena.cc:55] CHECK in  Alloc: none (1/2)";
        assert_eq!(without_folders(said), "arena.cc:55] CHECK in Alloc: none (1/2)");
        assert_eq!(without_folders("/proc/self/smaps: refused"), "/proc/self/smaps: refused");
    }
}
