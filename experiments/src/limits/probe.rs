//! The process that measures one row: started on the allocator it is about, under the limit of the row.

use super::case::{self, Case};
use super::heap::Heap;
use super::number::{Measured, Number};
use super::rlimit;
use crate::failure::Failure;
use crate::harness::process;
use crate::output;
use nix::libc;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
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
pub fn ask(case: &Case, heap: &Heap) -> Number {
    let mut command = heap.command(&["limits-probe", case.name]);
    if let Some((kind, bytes)) = case.limit {
        // SAFETY: one system call.
        unsafe { command.pre_exec(move || rlimit::set(kind, bytes)) };
    }
    answer(command, DEADLINE)
}

/// What a process says that is in a group of its own.
fn answer(mut command: Command, deadline: Duration) -> Number {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    let (waited, [said, complained]) = process::heard(&mut child, |child| child.wait_timeout(deadline));
    let Some(status) = waited.map_err(|error| format!("waiting for a process: {error}"))? else {
        drop(child.wait());
        return Err(format!("hung for {} s", deadline.as_secs()));
    };
    let [said, complained] = [said, complained].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match said.trim().parse() {
        Ok(number) if status.success() => Ok(Measured::exactly(number)),
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

    fn shell(script: &str, deadline: Duration) -> Number {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).process_group(0);
        answer(command, deadline)
    }

    /// What does not fit into a pipe is read while the process runs.
    #[test]
    fn who_says_much_does_not_hang() {
        let much = "head -c 300000 /dev/zero | tr '\\0' x";
        let long = Duration::from_secs(120);
        assert_eq!(shell(&format!("{much} >&2; echo 7"), long), Ok(Measured::exactly(7.0)));
        let reason = shell(&format!("{much}; {much} >&2; echo >&2; echo why >&2; exit 1"), long);
        assert_eq!(reason, Err("why".into()));
        assert_eq!(shell("exec sleep 600", Duration::from_secs(1)), Err("hung for 1 s".into()));
    }

    #[test]
    fn reasons_name_no_folders() {
        let said = "/home/me/tcmalloc/arena.cc:55] CHECK in  Alloc: none (1/2)";
        assert_eq!(without_folders(said), "arena.cc:55] CHECK in Alloc: none (1/2)");
        assert_eq!(without_folders("/proc/self/smaps: refused"), "/proc/self/smaps: refused");
    }
}
