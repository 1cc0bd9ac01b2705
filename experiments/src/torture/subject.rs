//! The heaps to run storms over: doors and modes.

use super::heap::Door;
use crate::failure::Failure;
use perseq::Mode;
use std::path::{Path, PathBuf};

/// The mode's name here for `PERSEQ_HARDENED=1`.
pub const HARDENED: &str = "hardened";
/// Where the heap is not perseq.
pub const NO_MODE: &str = "-";

/// A heap to run storms over.
pub struct Subject {
    /// Name of the door, as on the command line.
    pub through: String,
    /// The door.
    pub door: Door,
    /// What is preloaded.
    pub preload: Option<PathBuf>,
    /// The mode, or [`NO_MODE`].
    pub mode: String,
}

/// Every door with every mode it has.
pub fn all(
    through: Option<&[String]>,
    modes: Option<&[String]>,
    libperseq: Option<&Path>,
) -> Result<Vec<Subject>, Failure> {
    let known: Vec<_> = Mode::ALL.iter().map(|mode| mode.name()).chain([HARDENED]).collect();
    if let Some(unknown) = modes.into_iter().flatten().find(|name| !known.contains(&name.as_str())) {
        return Err(Failure::usage(format!("--modes {unknown}: expected some of {}", known.join(", "))));
    }
    let modes: Vec<String> = modes.map_or_else(|| known.iter().map(|name| (*name).to_owned()).collect(), <[_]>::to_vec);
    let usual = || [Some("crate"), libperseq.map(|_| "libperseq")].into_iter().flatten().map(str::to_owned).collect();
    let doors: Vec<String> = through.map_or_else(usual, <[_]>::to_vec);
    let mut subjects = Vec::new();
    for through in doors {
        let (door, preload, modes) = match through.as_str() {
            "crate" => (Door::Crate, None, modes.clone()),
            "system" => (Door::Malloc, None, vec![NO_MODE.to_owned()]),
            "libperseq" => {
                let missing = || {
                    Failure::usage(
                        "no libperseq.so beside this program; `cargo build --release -p perseq-preload` makes it, or give --libperseq PATH",
                    )
                };
                (Door::Malloc, Some(libperseq.ok_or_else(missing)?.to_owned()), modes.clone())
            }
            path if path.contains('/') => {
                (Door::Malloc, library(Some(Path::new(path)), path)?, vec![NO_MODE.to_owned()])
            }
            other => {
                let expected = "expected crate, libperseq, system, or the path of a library, with a slash in it";
                return Err(Failure::usage(format!("--through {other}: {expected}")));
            }
        };
        subjects.extend(modes.into_iter().map(|mode| Subject {
            through: through.clone(),
            door,
            preload: preload.clone(),
            mode,
        }));
    }
    Ok(subjects)
}

/// The library given, or the one of this name beside this program, if it is there.
pub fn library(given: Option<&Path>, file: &str) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = given {
        let whole = path.canonicalize().map_err(|error| Failure::file(path, "open", error))?;
        return Ok(Some(whole));
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(file)));
    Ok(beside.filter(|path| path.exists()).and_then(|path| path.canonicalize().ok()))
}
