//! What a program allocates: the form that is replayed.
//!
//! [`format`] is that form, [`import`] makes it from a recorder's notes, [`merge`] makes one of several processes',
//! [`recorded`] holds some of real programs, [`synthetic`] makes them up.

mod format;
pub mod import;
pub mod merge;
pub mod recorded;
pub mod synthetic;

pub use format::{Event, MOST_OBJECTS, MOST_THREADS, Trace};

use crate::compressed;
use std::path::Path;

/// Reads and checks a trace, which may be compressed. The error names the file.
pub fn read(path: &Path) -> Result<Trace, String> {
    let bytes = compressed::read(path).map_err(|error| format!("{}: cannot read: {error}", path.display()))?;
    Trace::parse(&bytes).map_err(|problem| format!("{}: {problem}", path.display()))
}
