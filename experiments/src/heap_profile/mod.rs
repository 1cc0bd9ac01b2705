//! `perseq profile`: the heap profile of a program, with the names of its functions, and what is made of one.
//!
//! `launch.rs` runs the program on libperseq, whose processes write what `text.rs` reads. `join.rs` makes one profile of
//! that, in the messages of `pprof.rs`, with what `object_file.rs` knows of the code. `sites.rs` and `table.rs` tell any
//! such profile, also one that another allocator wrote. `running.rs` reads that of a process that still runs.

mod join;
mod launch;
mod object_file;
mod pprof;
mod running;
mod sites;
mod table;
mod text;

use crate::failure::{Exit, Failure};
use crate::harness::manifest;
use crate::live;
use crate::output;
use crate::report::number;
use crate::written;
use join::Process;
use launch::Wanted;
use pprof::Profile;
use sites::Sites;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Options of `perseq profile`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  perseq profile -- sort file
  perseq profile --leaks --every 64K --out leaks -- ./server
  perseq profile show leaks
  perseq profile live 4711 --leaks               of a process that runs with a profile, as it is now
  perseq profile diff before after               what grew from one profile to another
  go tool pprof -http=: leaks/heap.pb.gz

The table goes to standard error: standard output is the program's. Sums have no bias, and +- is
half of their 95 % interval: with fewer bytes from one sample to the next it is narrower. Of each
process that ends by exit or a return from main there is a profile; a forked child's begins with
what its parent had allocated. The exit code is the program's, 128 and the signal if one ended it."
)]
pub struct Arguments {
    /// What to do with profiles that there are.
    #[command(subcommand)]
    action: Option<Action>,
    /// Bytes from one sample to the next, in the mean; at least 4K.
    #[arg(long, value_name = "BYTES", default_value = "512K", value_parser = rate)]
    every: u64,
    /// Folder to create for the profile. Default: `profiles/TIME-PROGRAM`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// libperseq.so. Default: the one beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// How to tell it.
    #[command(flatten)]
    view: ViewOptions,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// How a profile is told.
#[derive(Debug, clap::Args)]
struct ViewOptions {
    /// Show what is still in use at the end, by stack, instead of the functions.
    #[arg(long)]
    leaks: bool,
    /// Rows of the table.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

/// What is done with profiles.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the table of a profile again.
    Show {
        /// The folder of a profile, or a file of pprof's.
        profile: PathBuf,
        /// How to tell it.
        #[command(flatten)]
        view: ViewOptions,
    },
    /// Take the profile of a process that runs with PERSEQ_PROFILE or under `perseq profile`, as it is now.
    Live {
        /// The process, which does nothing for it.
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,
        /// Folder to create for the profile. Default: the table alone.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// How to tell it.
        #[command(flatten)]
        view: ViewOptions,
    },
    /// Say what grew and what shrank from one profile to another, by stack.
    Diff {
        /// The folder of a profile, or a file of pprof's.
        before: PathBuf,
        /// The one to compare with it.
        after: PathBuf,
        /// Stacks to show.
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
    },
}

/// The profile in a folder of ours.
const FILE: &str = "heap.pb.gz";
/// What libperseq takes at least.
const LEAST_RATE: u64 = 4 << 10;

/// `perseq profile`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.action {
        None => profile(arguments),
        Some(Action::Show { profile, view }) => {
            let text = view.text(&read(profile)?);
            output::print(&text).map(|()| Exit::Done)
        }
        Some(Action::Live { pid, out, view }) => {
            let text = view.text(&live(*pid, out.as_deref())?);
            output::print(&text).map(|()| Exit::Done)
        }
        Some(Action::Diff { before, after, top }) => {
            let text = table::difference(&read(before)?, &read(after)?, *top);
            output::print(&text).map(|()| Exit::Done)
        }
    }
}

impl ViewOptions {
    fn text(&self, sites: &Sites) -> String {
        if self.leaks { table::leaks(sites, self.top) } else { table::top(sites, self.top) }
    }
}

/// A number of bytes, with K, M or G for a multiple of 1024.
fn rate(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, [("K", 10), ("M", 20), ("G", 30)].iter().find(|(unit, _)| text.ends_with(unit))),
        None => (text, None),
    };
    let bytes =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift.map_or(0, |(_, shift)| *shift)));
    let fits = bytes.filter(|bytes| (LEAST_RATE..=i64::MAX as u64).contains(bytes));
    fits.ok_or_else(|| "expected bytes, at least 4K, as in 512K".into())
}

/// Runs the program, and tells what it allocated.
fn profile(arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments { every, out, libperseq, view, program, .. } = arguments;
    let name = program.first().map_or("", |name| name.rsplit('/').next().unwrap_or(name));
    let folder = written::folder(out.as_deref(), "profiles", &format!("{}-{name}", manifest::stamp()))?;
    let folder = folder.canonicalize().map_err(|error| Failure::file(&folder, "create", error))?;
    let wanted = Wanted { every: *every, folder: &folder, libperseq: libperseq.as_deref(), program };
    let status = launch::run(&wanted);
    let (processes, unread) = match &status {
        Ok(_) => launch::written(&folder)?,
        Err(_) => (Vec::new(), Vec::new()),
    };
    if processes.is_empty() && unread.is_empty() {
        drop(fs::remove_dir(&folder)); // as long as nothing is in it
    }
    let status = status?;
    unread.iter().for_each(|failure| eprintln!("warning: {failure}"));
    if processes.is_empty() {
        return Err(Failure::usage(format!(
            "{}: {status}, and no profile came of it: is it linked statically, or does it bring its own malloc, run with \
             other privileges or without its environment, or end by a signal or _exit?",
            program.join(" ")
        )));
    }
    let lost: u64 = processes.iter().map(|process| process.text.lost).sum();
    if lost > 0 {
        eprintln!("warning: {lost} samples were not taken, for want of memory");
    }
    let profile = join::join(&processes, now(), &[format!("perseq profile -- {}", program.join(" "))]);
    let file = folder.join(FILE);
    profile.write(&file)?;
    let sites = Sites::of(&profile).map_err(|why| Failure::host(format!("{}: {why}", file.display())))?;
    let ids: BTreeSet<_> = processes.iter().map(|process| process.id).collect();
    let processes = if ids.len() == 1 { "1 process".to_owned() } else { format!("{} processes", ids.len()) };
    let stacks = number::count(sites.0.len(), "stack");
    // Whoever reads it no more has the file.
    let text = format!("\n{processes}, {stacks}: {}\n{}", file.display(), view.text(&sites));
    drop(io::stderr().write_all(text.as_bytes()));
    match status.success() && !unread.is_empty() {
        true => Ok(Exit::Partial),
        false => Ok(Exit::Program(code(status))),
    }
}

/// The profile of a running process, kept in a folder if one is named.
fn live(pid: i32, out: Option<&Path>) -> Result<Sites, Failure> {
    let process = live::process::Process::new(pid)?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let texts = running::profiles(&process)?.into_iter();
    let processes: Vec<_> = texts.map(|text| Process { id: pid.unsigned_abs(), text, root: root.clone() }).collect();
    let profile = join::join(&processes, now(), &[format!("perseq profile live {pid}")]);
    if let Some(out) = out {
        profile.write(&written::folder(Some(out), "", "")?.join(FILE))?;
    }
    Sites::of(&profile).map_err(|why| Failure::host(format!("{process}: {why}")))
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// The exit code of a program, as a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The profile of a folder of ours, or of a file.
fn read(path: &Path) -> Result<Sites, Failure> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
    let profile = Profile::read(&file)?;
    Sites::of(&profile).map_err(|why| Failure::file(&file, "read", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bytes() {
        for (text, bytes) in [("4096", 4096), ("4K", 4096), ("512K", 512 << 10), ("1M", 1 << 20), ("2G", 2 << 30)] {
            assert_eq!(rate(text), Ok(bytes));
        }
        for wrong in ["", "K", "0", "4095", "3K", "-1", "512k", "512KB", "1.5M", "99999999999G"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_are_those_of_a_shell() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), expected);
        }
    }
}
