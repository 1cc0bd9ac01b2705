//! How a check with a known answer came out.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The check that holds one mode against itself.
pub const TWIN_CHECK: &str = "A/A";

/// The check that counts known misses.
pub const MISSES_CHECK: &str = "known misses";

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Failed,
    /// This host cannot be asked.
    Unavailable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Unavailable => "not available",
        })
    }
}

/// One check and what it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Validity {
    /// What was checked.
    pub check: String,
    /// How it came out.
    pub status: Outcome,
    /// What was found, or why it failed.
    pub detail: String,
}
