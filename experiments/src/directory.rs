//! Commands about the directory of a run, whatever its kind: the report again, the rest of it, and less room for it.

use crate::experiment::Experiments;
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Reading};
use crate::harness::conduct;
use crate::harness::study::Study;
use crate::output;
use crate::programs::{self, Programs};
use crate::replay::{self, Replay};
use crate::report::{self, document::Block};
use crate::run;
use crate::simulate::{self, Simulation};
use crate::suite::{self, Suite, arm};
use std::path::{Path, PathBuf};

/// Options of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq resume runs/20261121T040559Z-standard
  perseq resume runs/20261121T040559Z-suite-quick --allocator mine=./libmine.so
  perseq resume runs/20261121T040559Z-replay --trace server.trace

No path is recorded in a run, so libraries, plugins and traces that perseq does not find by itself are named again.")]
pub struct Resume {
    /// Directory of the run.
    dir: PathBuf,
    /// A further allocator of the run: its name, its library, and variables it runs with. May be repeated.
    #[arg(long = "allocator", value_name = "NAME=PATH[,VARIABLE=VALUE]")]
    allocators: Vec<String>,
    /// Folder of `perseq peers`. Default: `perseq/peers` in the user's cache, if it is there.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// The trace of a replay.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The plugin of a simulation. Default: `libperseq_cache_plugin.so` beside this program.
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
}

/// `perseq resume`: takes the samples that an interrupted run left out.
pub fn resume(arguments: &Resume) -> Result<Exit, Failure> {
    let archive = Archive::open(&arguments.dir)?;
    let choice = arm::Choice {
        allocators: &arguments.allocators,
        peers: arguments.peers.as_deref(),
        libperseq: arguments.libperseq.as_deref(),
        only: None,
    };
    match archive.kind()?.as_str() {
        Suite::KIND => {
            let run = conduct::reopen::<Suite>(&archive)?;
            let suite = suite::resumed(&run, &choice)?;
            suite::finish(&archive, run, suite)
        }
        Programs::KIND => {
            let run = conduct::reopen::<Programs>(&archive)?;
            let arms = programs::resumed(&run, &choice)?;
            programs::finish(&archive, run, arms)
        }
        Replay::KIND => {
            let run = conduct::reopen::<Replay>(&archive)?;
            let missing = || Failure::usage("resume: this run replays a trace; expected --trace FILE");
            replay::finish(&archive, run, arguments.trace.as_deref().ok_or_else(missing)?)
        }
        Simulation::KIND => simulate::resume(&archive, arguments.plugin.as_deref(), &choice),
        _ => run::finish(&archive, conduct::reopen::<Experiments>(&archive)?),
    }
}

/// `perseq report`: makes the report again from the raw rows alone.
pub fn report(root: &Path, accept: bool) -> Result<Exit, Failure> {
    let archive = Archive::open(root)?;
    let reading = Reading::accepting(accept);
    match archive.kind()?.as_str() {
        Suite::KIND => suite::again(&archive, archive.read(reading)?, whole_programs(&archive, reading)?),
        Programs::KIND => programs::again(&archive, &archive.read(reading)?),
        Replay::KIND => replay::again(&archive, &archive.read(reading)?),
        Simulation::KIND => simulate::again(&archive, &archive.read(reading)?),
        _ => {
            let told = report::write(&archive, archive.read(reading)?)?;
            output::print(&told.to_string()).map(|()| Exit::Done)
        }
    }
}

/// `perseq pack`: compresses plan and rows.
pub fn pack(root: &Path) -> Result<Exit, Failure> {
    Archive::open(root)?.compress().map(|()| Exit::Done)
}

/// What real programs did, where a run of them lies in the folder `programs` of a run of the suite.
fn whole_programs(archive: &Archive, reading: Reading) -> Result<Vec<Block>, Failure> {
    let folder = archive.root().join("programs");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    Ok(programs::section(&Archive::open(&folder)?.read::<Programs>(reading)?))
}
