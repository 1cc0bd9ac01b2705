//! What is measured: a mode of perseq, the system's malloc as an outside reference, or no allocator at all.

use perseq::Mode;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The one independent variable inside a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// perseq in one of its modes.
    Perseq(Mode),
    /// libc's malloc and free.
    System,
    /// The same work over lists private to a thread, never full and never shared: what is left is not the allocator.
    Control,
}

/// The subject every ratio is taken to.
pub const BASELINE: Subject = Subject::Perseq(Mode::PerThread);

/// The subject that runs twice in each block, so that every comparison carries its A/A.
pub const TWINNED: Subject = Subject::Perseq(Mode::PerCpu);

impl Subject {
    /// Every subject, in the order reports list them.
    pub fn all() -> impl Iterator<Item = Subject> {
        Mode::ALL.into_iter().map(Subject::Perseq).chain([Subject::System, Subject::Control])
    }

    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Subject::Perseq(mode) => mode.name(),
            Subject::System => "system",
            Subject::Control => "control",
        }
    }

    /// The subject called `name`.
    pub fn from_name(name: &str) -> Option<Subject> {
        Subject::all().find(|subject| subject.name() == name)
    }

    /// Its place in [`Subject::all`].
    pub fn rank(self) -> usize {
        Subject::all().position(|subject| subject == self).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.name().to_owned()
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(name: String) -> Result<Subject, String> {
        Subject::from_name(&name).ok_or_else(|| {
            let known: Vec<_> = Subject::all().map(Subject::name).collect();
            format!("no mode `{name}`; expected one of {}", known.join(", "))
        })
    }
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(name: &str) -> Result<Subject, String> {
        Subject::try_from(name.to_owned())
    }
}
