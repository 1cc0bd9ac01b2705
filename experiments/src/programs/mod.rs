//! Real programs on libperseq, in every mode: do they say what they say on the C library's malloc, and at what cost?
//!
//! Each program has a script in `experiments/programs/` that does real work and prints only what must not depend on
//! the allocator. It runs in an empty folder, first on the C library, then preloaded. What differs, and what was said
//! while it failed, is kept; `rows.jsonl` gets a row after each run, `table.txt` is what is printed in the end. Nothing is installed unless asked for.

mod row;
mod table;

use crate::archive::{Appender, Archive};
use crate::failure::{Exit, Failure};
use crate::gate::Watch;
use crate::host::Host;
use crate::manifest::{self, Tool};
use crate::output;
use crate::report::number;
use crate::statistics::Paired;
use crate::suite::{self, Arm};
use nix::libc;
use perseq::Mode;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use row::Row;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use table::{PROGRAMS, Program};

/// Options of `perseq programs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq programs --list
  perseq programs --only git,python --modes percpu
  perseq programs --rounds 10           with intervals")]
pub struct Arguments {
    /// Only these programs.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    only: Option<Vec<String>>,
    /// Only these modes, or `none`.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    modes: Option<Vec<String>>,
    /// A further allocator: its name and the library to preload. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH")]
    allocators: Vec<String>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Rounds of each program, in shuffled order. Two or more give intervals.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Install what is missing, by apt-get.
    #[arg(long)]
    install: bool,
    /// Print the programs and what is missing, and stop.
    #[arg(long)]
    list: bool,
    /// Directory to create for rows and for what failed. Default: `runs/TIME-programs`, in UTC.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Exit code by which a script says that something is missing.
const MISSING: i32 = 77;
/// Seconds after which a program counts as hung.
const DEADLINE_S: u64 = 900;

/// `perseq programs`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let only = arguments.only.as_deref();
    if let Some(unknown) = only.into_iter().flatten().find(|name| PROGRAMS.iter().all(|known| known.name != **name)) {
        let known: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        return Err(Failure::usage(format!("no program `{unknown}`; expected one of {}", known.join(", "))));
    }
    let chosen: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| only.is_none_or(|only| only.iter().any(|name| name == program.name)))
        .collect();
    if arguments.install {
        install(&chosen)?;
    }
    if arguments.list {
        return output::print(&chosen.iter().map(|program| program.line()).collect::<String>()).map(|()| Exit::Done);
    }
    let arms = arms(arguments)?;
    let root =
        arguments.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("{}-programs", manifest::stamp())));
    Archive::create(&root)?;
    let root = root.canonicalize().map_err(|error| Failure::file(&root, "open", error))?;
    let mut appender = Appender::open(root.join("rows.jsonl"))?;
    let mut rows = Vec::new();
    for program in &chosen {
        match program.missing() {
            Some(missing) => eprintln!("{}: skipped: {missing}", program.name),
            None => rows.extend(run(program, &arms, arguments.rounds, &root, &mut appender)?),
        }
    }
    let text = heading(&arms, arguments.rounds)? + &table(&rows, &arms, &chosen);
    let path = root.join("table.txt");
    fs::write(&path, &text).map_err(|error| Failure::file(&path, "write", error))?;
    output::print(&text)?;
    let exceeded = chosen.iter().any(|program| program.exceeded(&rows).is_some());
    let failed = exceeded || rows.iter().any(|row| !row.ok);
    if failed {
        eprintln!("what the failed ones said is in {}", root.display());
    }
    let skipped = chosen.iter().any(|program| rows.iter().all(|row| row.program != program.name));
    Ok(match (failed, skipped && only.is_some()) {
        (true, _) => Exit::Invalid,
        (false, true) => Exit::Host,
        (false, false) => Exit::Done,
    })
}

/// The C library, libperseq in its modes, and what was given.
fn arms(arguments: &Arguments) -> Result<Vec<Arm>, Failure> {
    let modes: Vec<String> =
        arguments.modes.clone().unwrap_or_else(|| Mode::ALL.iter().map(|mode| mode.name().to_owned()).collect());
    let modes: Vec<_> = modes.into_iter().filter(|name| name != "none").collect();
    if let Some(unknown) = modes.iter().find(|name| Mode::from_name(name).is_none()) {
        return Err(Failure::usage(format!("--modes {unknown}: no such mode")));
    }
    suite::chosen(&arguments.allocators, arguments.libperseq.as_deref(), &modes)
}

/// Runs a program on each arm, the C library first: what it prints there is what is expected.
fn run(
    program: &Program,
    arms: &[Arm],
    rounds: u64,
    root: &Path,
    appender: &mut Appender,
) -> Result<Vec<Row>, Failure> {
    let mut random = ChaCha8Rng::seed_from_u64(rounds);
    let mut rows = Vec::new();
    let mut expected = None;
    for round in 0..rounds {
        let mut order: Vec<_> = arms.iter().collect();
        if round > 0 {
            order.shuffle(&mut random);
        }
        for arm in order {
            eprintln!("{}: {}", program.name, arm.name);
            let outcome = execute(program, arm, &root.join(format!("{}-{}-{round}", program.name, arm.name)))?;
            if outcome.status.code() == Some(MISSING) {
                eprintln!("{}: skipped: {}", program.name, outcome.said.lines().last().unwrap_or("no reason"));
                return Ok(Vec::new());
            }
            let expected = expected.get_or_insert_with(|| outcome.stdout.clone());
            let reason = outcome.fault(expected);
            if reason.is_none() {
                // Only what failed is worth keeping.
                drop(fs::remove_dir_all(&outcome.folder));
            }
            let row = Row {
                program: program.name.into(),
                allocator: arm.name.clone(),
                round,
                ok: reason.is_none(),
                reason,
                wall_ns: outcome.wall_ns,
                rss_peak_bytes: outcome.rss_peak_bytes,
                other_load: outcome.other_load,
            };
            appender.append(&row)?;
            rows.push(row);
        }
    }
    Ok(rows)
}

struct Outcome {
    folder: PathBuf,
    status: ExitStatus,
    stdout: Vec<u8>,
    said: String,
    wall_ns: u64,
    rss_peak_bytes: u64,
    other_load: Option<f64>,
}

impl Outcome {
    fn fault(&self, expected: &[u8]) -> Option<String> {
        let last = || self.said.lines().last().unwrap_or("no message").to_owned();
        if self.status.code() == Some(124) {
            return Some(format!("did not end within {DEADLINE_S} s"));
        }
        if let Some(signal) = self.status.signal() {
            return Some(format!("died of signal {signal}: {}", last()));
        }
        if !self.status.success() {
            return Some(format!("ended with {}: {}", self.status.code().unwrap_or(-1), last()));
        }
        if self.stdout.is_empty() {
            return Some("printed nothing".into());
        }
        let (found, expected) = (String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(expected));
        let mut lines = found.lines().zip(expected.lines());
        let mut differs = || lines.find(|(found, expected)| found != expected);
        (found != expected).then(|| match differs() {
            Some((found, expected)) => format!("printed `{found}`; expected `{expected}`"),
            None => "printed more or fewer lines than expected".into(),
        })
    }
}

/// Runs the script in a new folder. Its output goes to files there, so that it survives.
fn execute(program: &Program, arm: &Arm, folder: &Path) -> Result<Outcome, Failure> {
    let fail = |error: std::io::Error| Failure::file(folder, "use", error);
    let work = folder.join("work");
    fs::create_dir_all(&work).map_err(fail)?;
    // A server that gives up root must still reach its folder.
    fs::set_permissions(&work, fs::Permissions::from_mode(0o755)).map_err(fail)?;
    let mut script = File::create(folder.join("script.sh")).map_err(fail)?;
    script.write_all(program.script.as_bytes()).map_err(fail)?;
    drop(script);
    let (out, err) = (folder.join("stdout"), folder.join("stderr"));
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &DEADLINE_S.to_string(), "bash", "-eu"]).arg(folder.join("script.sh"));
    command.current_dir(&work).env_remove("LD_PRELOAD").envs(arm.environment());
    command.env("PROJECT_SOURCE", concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.stdin(Stdio::null()).stdout(File::create(&out).map_err(fail)?).stderr(File::create(&err).map_err(fail)?);
    let (watch, start) = (Watch::start(), Instant::now());
    let child = command.spawn().map_err(|error| Failure::host(format!("timeout: {error}; Debian: coreutils")))?;
    let (status, rss_peak_bytes) = wait(child.id()).map_err(fail)?;
    Ok(Outcome {
        folder: folder.to_owned(),
        status,
        stdout: fs::read(&out).map_err(fail)?,
        said: String::from_utf8_lossy(&fs::read(&err).map_err(fail)?).into_owned(),
        wall_ns: start.elapsed().as_nanos() as u64,
        rss_peak_bytes,
        other_load: watch.stop().other_load,
    })
}

/// Waits for a child, and says how large it or a descendant it waited for became.
fn wait(pid: u32) -> std::io::Result<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the child is ours and nobody else waits for it; both places are ours to write.
        if unsafe { libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage) } >= 0 {
            return Ok((ExitStatus::from_raw(status), (usage.ru_maxrss as u64) << 10));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Installs the Debian packages that are missing.
fn install(chosen: &[&Program]) -> Result<(), Failure> {
    let mut packages: Vec<_> =
        chosen.iter().filter(|program| program.missing().is_some()).flat_map(|program| program.packages).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // What it prints is not our result.
    let status = command.stdout(Stdio::from(std::io::stderr())).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::host(format!("apt-get install: {status}; `apt-get update` may help, or root"))),
        Err(error) => Err(Failure::host(format!("apt-get: {error}; --install needs Debian"))),
    }
}

/// Where and of what the table was made.
fn heading(arms: &[Arm], rounds: u64) -> Result<String, Failure> {
    let (host, tool) = (Host::read(), Tool::this()?);
    let mut text = format!("# perseq programs, {rounds} rounds, {}\n", manifest::now());
    text += &format!("# {}; {}\n", host.caption(), host.libc);
    text += &format!("# perseq {}, commit {}, dirty: {}; {}\n", tool.version, tool.git_commit, tool.dirty, tool.rustc);
    arms.iter().for_each(|arm| text += &format!("# {}\n", arm.line()));
    Ok(text)
}

/// One line to a program and allocator.
fn table(rows: &[Row], arms: &[Arm], chosen: &[&Program]) -> String {
    let mut text =
        format!("{:12} {:14} {:>9} {:>24} {:>10} {:>7}  result\n", "program", "on", "time", "ratio", "peak", "ratio");
    for program in chosen {
        for arm in arms {
            let of = |name: &str| -> Vec<&Row> {
                rows.iter().filter(|row| row.program == program.name && row.allocator == name).collect()
            };
            let (own, base) = (of(&arm.name), of(suite::SYSTEM));
            let Some(first) = own.first() else { continue };
            let pairs = |value: fn(&Row) -> u64| -> Vec<(f64, f64)> {
                base.iter().zip(&own).map(|(base, own)| (value(base) as f64, value(own) as f64)).collect()
            };
            let (time, peak) = (pairs(|row| row.wall_ns), pairs(|row| row.rss_peak_bytes));
            let ratio = |pairs: &[(f64, f64)]| {
                let logs: f64 = pairs.iter().map(|(base, own)| (own / base).ln()).sum();
                (logs / pairs.len() as f64).exp()
            };
            let interval = Paired::new(&time).and_then(|paired| paired.t());
            let interval = interval.map_or_else(String::new, |t| format!(" [{:.2}, {:.2}]", t.low, t.high));
            let failed = own.iter().find(|row| !row.ok).and_then(|row| row.reason.clone());
            let over = program.exceeded(rows).filter(|(name, _)| *name == arm.name).map(|(_, line)| line);
            text += &format!(
                "{:12} {:14} {:>7.2} s {:>24} {:>10} {:>7.2}  {}\n",
                program.name,
                arm.name,
                first.wall_ns as f64 / 1e9,
                format!("{:.2}{interval}", ratio(&time)),
                number::bytes(first.rss_peak_bytes as f64),
                ratio(&peak),
                failed.map(|reason| format!("FAILED: {reason}")).or(over).unwrap_or_else(|| "ok".into())
            );
        }
        program.note.iter().for_each(|note| text += &format!("{:12} {note}\n", ""));
    }
    text
}
