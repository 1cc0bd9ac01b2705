//! What is told of one allocator of another process at one moment.

use super::find::Allocator;
use super::look::{About, Look};
use super::numbers::Snapshot;
use super::process::Process;
use crate::failure::Failure;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is told.
pub struct View {
    pub process: i32,
    pub program: String,
    /// The program or library that holds the allocator.
    pub file: String,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The process was at rest. Otherwise its numbers are of moments close to one another.
    pub exact: bool,
    pub about: About,
    pub snapshot: Snapshot,
}

impl View {
    /// All of these allocators, but for those that nobody has used yet; at least one.
    pub fn all(process: &Process, allocators: &[Allocator]) -> Result<Vec<View>, Failure> {
        let mut views = Vec::new();
        for allocator in allocators {
            views.extend(View::take(process, allocator)?);
        }
        if views.is_empty() {
            return Err(Failure::host(format!("{process}: nothing was allocated yet through the perseq it holds")));
        }
        Ok(views)
    }

    fn take(process: &Process, allocator: &Allocator) -> Result<Option<View>, Failure> {
        let look = || Look::take(process, allocator).map_err(|why| process.failure(&why));
        let (Some(before), Some(now)) = (look()?, look()?) else { return Ok(None) };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Some(View {
            process: process.id(),
            program: process.name.clone(),
            file: allocator.file.clone(),
            unix_ms: time.as_millis() as u64,
            exact: before == now,
            snapshot: Snapshot::of(&now),
            about: now.about,
        }))
    }
}
