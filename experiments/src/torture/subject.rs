//! The heaps to run storms over: doors and modes.

use super::heap::Door;
use crate::beside::LIBPERSEQ;
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
                (Door::Malloc, Some(libperseq.ok_or_else(|| LIBPERSEQ.missing())?.to_owned()), modes.clone())
            }
            path if path.contains('/') => {
                let fail = |error| Failure::usage(format!("--through {path}: {error}"));
                (Door::Malloc, Some(Path::new(path).canonicalize().map_err(fail)?), vec![NO_MODE.to_owned()])
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
