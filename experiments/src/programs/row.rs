//! What is kept of a run of a program.

use serde::Serialize;

/// One run of one program.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub program: String,
    pub allocator: String,
    pub round: u64,
    /// Whether it ended with 0 and printed what it prints on the C library.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
    pub wall_ns: u64,
    /// Largest resident set of any of its processes.
    pub rss_peak_bytes: u64,
    pub other_load: Option<f64>,
}
