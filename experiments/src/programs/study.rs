//! Real programs as a kind of run: each in a folder of its own, and what it prints held against the C library's.

use super::catalogue::{self, Program};
use crate::checksum;
use crate::failure::Failure;
use crate::harness::archive::Contents;
use crate::harness::place::Planned;
use crate::harness::process::{self, Ended, Exited, Job};
use crate::harness::row;
use crate::harness::study::{Refusal, Study};
use crate::harness::task::Task;
use crate::suite::{Arm, SYSTEM};
use crate::written;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a sample is told. Its cell is the program, its block the round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Name of the allocator.
    pub allocator: String,
}

impl Task for Trial {
    fn subject(&self) -> &str {
        &self.allocator
    }

    /// A guess: they take from less than a second to a minute.
    fn estimate(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether it printed what it prints on the C library.
    pub verified: bool,
    /// Why it does not count.
    pub fault: Option<String>,
    /// SHA-256 of what it printed.
    pub printed_sha256: String,
    /// From its start to its end.
    pub wall_ns: u64,
    /// Largest resident set of any of its processes.
    pub rss_peak_bytes: u64,
    /// Mean resident set of its processes together. Null: it ended before anybody looked.
    #[serde(default)]
    pub rss_mean_bytes: Option<u64>,
    /// Page faults of its processes that needed no disk.
    #[serde(default)]
    pub minor_faults: Option<u64>,
    /// Page faults of its processes that did.
    #[serde(default)]
    pub major_faults: Option<u64>,
}

/// A row of real programs.
pub type Row = row::Row<Trial, Report>;
/// A run of real programs as it was read.
pub type Run = Contents<Programs>;

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Rounds of each program.
    pub rounds: u64,
    /// Names of the programs.
    pub programs: Vec<String>,
    /// Allocators, in the order of the table.
    pub allocators: Vec<Arm>,
}

/// Exit code by which a script says that something is missing.
const MISSING: i32 = 77;
/// How long a program may take before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(900);

/// Real programs on these allocators, with their folders in the directory of the run.
pub struct Programs {
    /// The directory.
    pub root: PathBuf,
    /// The allocators, with their libraries.
    pub arms: Vec<Arm>,
}

impl Programs {
    fn folder(&self, planned: &Planned<Trial>) -> PathBuf {
        self.root.join(format!("{}-{}-{}", planned.cell_id, planned.task.allocator, planned.block))
    }

    /// Asks each program what it prints on the C library, where another allocator comes first: in a part of a plan.
    pub fn ask(&self, plan: &[Planned<Trial>]) -> Result<(), Failure> {
        let mut asked = BTreeSet::new();
        for first in plan.iter().filter(|planned| asked.insert(&planned.cell_id)) {
            if first.task.allocator == SYSTEM || first.skip.is_some() || self.answers().join(&first.cell_id).exists() {
                continue;
            }
            let planned = Planned { task: Trial { allocator: SYSTEM.into() }, ..first.clone() };
            let failed = |why: String| Failure::host(format!("{} on the C library: {why}", planned.cell_id));
            match process::observe(&self.job(&planned).map_err(failed)?).map_err(failed)? {
                Ended::TimedOut(_) => return Err(failed("it did not end in time".into())),
                // One that failed says so in its samples as well.
                Ended::Exited(ended) => drop(self.read(&planned, &ended)),
            }
        }
        Ok(())
    }

    /// What programs print on the C library.
    fn answers(&self) -> PathBuf {
        self.root.join("expected")
    }

    /// What the program prints on the C library: what it printed there the first time.
    fn expected(&self, planned: &Planned<Trial>, printed: &[u8]) -> Result<Vec<u8>, String> {
        let folder = self.answers();
        let path = folder.join(&planned.cell_id);
        match fs::read(&path) {
            Ok(expected) => Ok(expected),
            Err(_) if planned.task.allocator == SYSTEM => {
                fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                written::whole(&path, printed).map_err(|error| error.to_string())?;
                Ok(printed.to_vec())
            }
            Err(error) => Err(format!("what it prints on the C library is not known: {}: {error}", path.display())),
        }
    }
}

impl Study for Programs {
    const KIND: &'static str = "programs";
    const PROCESS: &'static str = "the program";
    /// Servers are not descendants that anybody waits for, so their work would count as that of others.
    const GATED: bool = false;
    type Task = Trial;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Planned<Trial>) -> Result<Job, String> {
        let program = catalogue::find(&planned.cell_id).ok_or_else(|| format!("no program `{}`", planned.cell_id))?;
        let arm = Arm::find(&self.arms, &planned.task.allocator)?;
        let folder = self.folder(planned);
        prepare(program, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let job = Job::new("bash", DEADLINE).argument("-eu").argument(folder.join("script.sh")).inheriting().watched();
        let source = [("PROJECT_SOURCE".to_owned(), concat!(env!("CARGO_MANIFEST_DIR"), "/..").to_owned())];
        let files = ["stdout", "stderr"].map(|name| folder.join(name));
        Ok(job.environment(arm.environment()).environment(source).in_folder(folder.join("work"), files))
    }

    fn read(&self, planned: &Planned<Trial>, ended: &Exited) -> Result<Report, Refusal> {
        let folder = self.folder(planned);
        if ended.status.code() == Some(MISSING) {
            drop(fs::remove_dir_all(&folder));
            return Err(Refusal::Missing(ended.last_line()));
        }
        let expected = self.expected(planned, &ended.stdout).map_err(Refusal::Failed)?;
        let fault = fault(ended, &expected);
        if fault.is_none() {
            // Only what failed is worth keeping.
            drop(fs::remove_dir_all(&folder));
        }
        Ok(Report {
            verified: ended.stdout == expected,
            fault,
            printed_sha256: checksum::of(&ended.stdout),
            wall_ns: ended.wall_ns,
            rss_peak_bytes: ended.peak_bytes,
            rss_mean_bytes: ended.mean_bytes,
            minor_faults: Some(ended.faults[0]),
            major_faults: Some(ended.faults[1]),
        })
    }

    fn fault(_: &Trial, report: &Report) -> Option<String> {
        report.fault.clone().or_else(|| (!report.verified).then(|| "it is not verified".into()))
    }

    fn baseline(_: &About) -> &str {
        SYSTEM
    }
}

/// The folder of a program: its script, and an empty one to work in.
fn prepare(program: &Program, folder: &Path) -> std::io::Result<()> {
    let work = folder.join("work");
    // What an interrupted attempt left.
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(&work)?;
    // A server that gives up root must still reach its folder.
    fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.join("script.sh"), program.script)
}

fn fault(ended: &Exited, expected: &[u8]) -> Option<String> {
    if !ended.status.success() {
        return Some(format!("ended with {}: {}", ended.status.code().unwrap_or(-1), ended.last_line()));
    }
    if ended.stdout.is_empty() {
        return Some("printed nothing".into());
    }
    let (found, expected) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(expected));
    let mut lines = found.lines().zip(expected.lines());
    let mut differs = || lines.find(|(found, expected)| found != expected);
    (found != expected).then(|| match differs() {
        Some((found, expected)) => format!("printed `{found}`; expected `{expected}`"),
        None => "printed more or fewer lines than expected".into(),
    })
}
