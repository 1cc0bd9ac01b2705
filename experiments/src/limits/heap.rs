//! The columns of the table: the C library's malloc, perseq in its modes, and the peers that were built.

use crate::beside::{LIBPERSEQ, preloadable};
use crate::checksum;
use crate::failure::Failure;
use crate::peers;
use nix::libc;
use perseq::Mode;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An allocator.
pub struct Heap {
    /// Its name.
    pub name: String,
    /// Its version and where it comes from.
    pub version: String,
    /// It is perseq.
    pub is_perseq: bool,
    library: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

/// What the command line says of columns.
pub struct Choice<'a> {
    /// Only these.
    pub heaps: Option<&'a [String]>,
    /// libperseq; None: the one beside this program.
    pub libperseq: Option<&'a Path>,
    /// Folder of peers; None: the default one.
    pub peers: Option<&'a Path>,
}

/// Modes that have a column where none are named: one cache per CPU, one per thread.
const USUAL: [Mode; 2] = [Mode::PerCpu, Mode::PerThread];

impl Heap {
    /// This program again, on this allocator, with arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).process_group(0);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(library) = &self.library {
            // A process of the harness was asked whether it runs on it.
            command.env("LD_PRELOAD", preloadable(library).unwrap_or_else(|_| library.clone()));
        }
        let end_with_us = || {
            // SAFETY: integers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: one system call.
        unsafe { command.pre_exec(end_with_us) };
        command
    }

    /// One that is nothing but a name.
    #[cfg(test)]
    pub fn bare(name: &str, is_perseq: bool) -> Heap {
        Heap { name: name.into(), version: String::new(), is_perseq, library: None, environment: Vec::new() }
    }

    /// Asks a process on it whether it is the active allocator.
    fn verified(self) -> Result<Heap, Failure> {
        let fail = |reason: String| Failure::usage(format!("{}: {reason}", self.name));
        let active = peers::probe::ask(self.library.as_deref(), &self.environment).map_err(fail)?;
        let mode = self.is_perseq.then_some(self.name.as_str());
        match active.fault(self.library.as_deref(), mode) {
            Some(fault) => Err(fail(fault)),
            None => Ok(self),
        }
    }
}

/// The columns, in order: perseq first.
pub fn all(choice: &Choice) -> Result<Vec<Heap>, Failure> {
    let wanted = |name: &str| choice.heaps.is_none_or(|heaps| heaps.iter().any(|heap| heap == name));
    let mut heaps = Vec::new();
    let named = |mode: &Mode| choice.heaps.map_or(USUAL.contains(mode), |_| wanted(mode.name()));
    for mode in Mode::ALL.into_iter().filter(named) {
        let library = LIBPERSEQ.find(choice.libperseq)?;
        let sum = checksum::of_file(&library).map_err(|error| Failure::file(&library, "read", error))?;
        heaps.push(Heap {
            name: mode.name().into(),
            version: format!("{}, libperseq.so of SHA-256 {}", env!("CARGO_PKG_VERSION"), &sum[..16]),
            is_perseq: true,
            library: Some(library),
            environment: vec![("PERSEQ_MODE".into(), mode.name().into())],
        });
    }
    let system = Heap {
        name: "system".into(),
        version: crate::host::kernel::libc().to_string(),
        is_perseq: false,
        library: None,
        environment: Vec::new(),
    };
    heaps.extend(wanted("system").then_some(system));
    let folder = choice.peers.map_or_else(peers::default_folder, |folder| Ok(folder.to_owned()))?;
    if choice.peers.is_some() || folder.is_dir() {
        let folder = folder.canonicalize().map_err(|error| Failure::file(&folder, "open", error))?;
        for peer in peers::built(&folder)?.into_iter().filter(|peer| peer.name != "system" && wanted(&peer.name)) {
            heaps.push(Heap {
                version: format!("{}, {}", peer.version, peer.obtained),
                name: peer.name,
                is_perseq: false,
                library: peer.file.map(|file| folder.join(file)),
                environment: peer.environment,
            });
        }
    }
    if let Some(unknown) = choice.heaps.into_iter().flatten().find(|name| heaps.iter().all(|heap| heap.name != **name))
    {
        return Err(Failure::usage(format!("--heaps {unknown}: expected system, a mode, or a peer that was built")));
    }
    heaps.into_iter().map(Heap::verified).collect()
}
