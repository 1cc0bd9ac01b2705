//! Why a command stops: one line for the reader and one exit code for the script.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// What the exit code tells a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// A check failed: the numbers must not be believed.
    Invalid,
    /// The command line or an input file is wrong.
    Usage,
    /// This host cannot do what was asked.
    Host,
    /// Some of it is missing; `perseq resume` completes it.
    Partial,
    /// What a program said that was run for its user.
    Program(u8),
}

impl Exit {
    /// The code that a process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Invalid => 1,
            Exit::Usage => 2,
            Exit::Host => 3,
            Exit::Partial => 4,
            Exit::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
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
