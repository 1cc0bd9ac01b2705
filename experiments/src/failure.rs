//! Why a command stops: one line for the reader and one exit code for the script.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// What the exit code tells a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// A check failed: the numbers must not be believed.
    Invalid = 1,
    /// The command line or an input file is wrong.
    Usage = 2,
    /// This host cannot do what was asked.
    Host = 3,
    /// Some of it is missing; `perseq resume` completes it.
    Partial = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A reason to stop, in one line.
#[derive(Debug)]
pub struct Failure {
    /// The code to leave with.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// The input is wrong: says what was found and what was expected.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, message: message.into() }
    }

    /// The host cannot do it.
    pub fn host(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Host, message: message.into() }
    }

    /// A file could not be read, which is the caller's choice of file, or not be written, which is the host's.
    pub fn file(path: &Path, doing: &str, error: impl fmt::Display) -> Failure {
        let exit = if matches!(doing, "read" | "open") { Exit::Usage } else { Exit::Host };
        Failure { exit, message: format!("{}: cannot {doing}: {error}", path.display()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
