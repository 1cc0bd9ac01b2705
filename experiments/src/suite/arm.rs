//! The allocators of a run, each checked before the first sample.

use crate::beside::LIBPERSEQ;
use crate::checksum;
use crate::failure::Failure;
use crate::peers::{self, probe};
use perseq::Mode;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The C library's malloc.
pub const SYSTEM: &str = "system";

/// An allocator as it is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Its library. Null: the C library. Not recorded: it would name a user or a folder.
    #[serde(skip)]
    pub library: Option<PathBuf>,
    /// What a process on it loads, that library among it. Not recorded either.
    #[serde(skip)]
    pub loaded: Vec<PathBuf>,
    /// Name of the library's file.
    pub file: Option<String>,
    /// Checksum of the library.
    pub sha256: Option<String>,
    /// Version, where it is known.
    pub version: Option<String>,
    /// Where it came from, where that is known.
    pub obtained: Option<String>,
    /// Variables it runs with.
    pub environment: Vec<(String, String)>,
    /// The mode that must be active, if it is libperseq.
    pub mode: Option<String>,
    /// The mode TCMalloc was seen in.
    pub seen: Option<String>,
}

impl Arm {
    fn new(name: &str, library: Option<&Path>) -> Result<Arm, Failure> {
        let sha256 = library.map(|path| checksum::of_file(path).map_err(|error| Failure::file(path, "read", error)));
        let file = library.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        Ok(Arm {
            name: name.into(),
            library: library.map(Path::to_owned),
            loaded: Vec::new(),
            file,
            sha256: sha256.transpose()?,
            version: None,
            obtained: None,
            environment: Vec::new(),
            mode: None,
            seen: None,
        })
    }

    /// One that is nothing but a name.
    #[cfg(test)]
    pub fn bare(name: &str) -> Arm {
        Arm::new(name, None).expect("nothing is read")
    }

    /// Its name, and what is known of the library.
    pub fn line(&self) -> String {
        let known = [&self.version, &self.obtained, &self.file, &self.sha256, &self.seen];
        let variables = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let known: Vec<_> = known.into_iter().flatten().cloned().chain(variables).collect();
        format!("{:16} {}", self.name, known.join(", ")).trim_end().to_owned()
    }

    /// Environment of a process that runs on it.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let preload = self.library.as_ref().map(|path| ("LD_PRELOAD".to_owned(), path.display().to_string()));
        preload.into_iter().chain(self.environment.iter().cloned())
    }

    /// The arm called `name`.
    pub fn find<'a>(arms: &'a [Arm], name: &str) -> Result<&'a Arm, String> {
        arms.iter().find(|arm| arm.name == name).ok_or_else(|| format!("no allocator `{name}`"))
    }

    /// Asks a fresh process whether this allocator is the active one.
    fn verify(mut self) -> Result<Arm, Failure> {
        let fail = |reason: String| Failure::usage(format!("{}: {reason}", self.name));
        let active = probe::ask(self.library.as_deref(), &self.environment).map_err(fail)?;
        if let Some(fault) = active.fault(self.library.as_deref(), self.mode.as_deref()) {
            return Err(fail(fault));
        }
        // One that was named says itself in which mode it is, and has to stay in it.
        self.mode = self.mode.or(active.perseq_mode);
        self.loaded = active.loaded;
        self.seen = active.tcmalloc.map(|tcmalloc| tcmalloc.mode());
        Ok(self)
    }
}

/// What the command line says of arms.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// `NAME=PATH`, each, and variables behind commas.
    pub allocators: &'a [String],
    /// Folder of `perseq peers`; null: the default one, if there is one.
    pub peers: Option<&'a Path>,
    /// libperseq; null: the one beside this program.
    pub libperseq: Option<&'a Path>,
    /// Only these.
    pub only: Option<&'a [String]>,
}

/// Every arm of a run, in the order of the report.
pub fn all(choice: &Choice) -> Result<Vec<Arm>, Failure> {
    let mut arms = vec![Arm::new(SYSTEM, None)?];
    let wanted = |name: &str| choice.only.is_none_or(|only| only.iter().any(|wanted| wanted == name));
    if Mode::ALL.iter().any(|mode| wanted(mode.name())) {
        arms.extend(modes(choice.libperseq)?);
    }
    arms.extend(built(choice.peers)?);
    for text in choice.allocators {
        arms.push(named(text)?);
    }
    for (index, arm) in arms.iter().enumerate() {
        if arms[..index].iter().any(|other| other.name == arm.name) {
            return Err(Failure::usage(format!("--allocator {}: the name is taken; expected another", arm.name)));
        }
    }
    if let Some(unknown) = choice.only.into_iter().flatten().find(|name| arms.iter().all(|arm| arm.name != **name)) {
        let known: Vec<_> = arms.iter().map(|arm| arm.name.as_str()).collect();
        return Err(Failure::usage(format!("no allocator `{unknown}`; expected one of {}", known.join(", "))));
    }
    arms.into_iter().filter(|arm| wanted(&arm.name)).map(Arm::verify).collect()
}

/// The C library, libperseq in these modes, and these allocators.
pub fn chosen(allocators: &[String], libperseq: Option<&Path>, wanted: &[String]) -> Result<Vec<Arm>, Failure> {
    let mut arms = vec![Arm::new(SYSTEM, None)?];
    if !wanted.is_empty() {
        arms.extend(modes(libperseq)?.into_iter().filter(|arm| wanted.contains(&arm.name)));
    }
    allocators.iter().try_for_each(|text| named(text).map(|arm| arms.push(arm)))?;
    arms.into_iter().map(Arm::verify).collect()
}

/// The arms that a run recorded, found again by name. Refuses a library that is not the one that was measured.
pub fn again(recorded: &[Arm], choice: &Choice) -> Result<Vec<Arm>, Failure> {
    let names: Vec<_> = recorded.iter().map(|arm| arm.name.clone()).collect();
    let found = all(&Choice { only: Some(&names), ..*choice })?;
    let same = |recorded: &Arm| {
        let arm = Arm::find(&found, &recorded.name).map_err(Failure::usage)?;
        if arm.sha256 != recorded.sha256 {
            let line = format!("resume: the library of {} is not the one that was measured", arm.name);
            return Err(Failure::usage(line));
        }
        if arm.environment != recorded.environment {
            let line = format!("resume: {} was measured with the variables {:?}", arm.name, recorded.environment);
            return Err(Failure::usage(line));
        }
        Ok(arm.clone())
    };
    recorded.iter().map(same).collect()
}

/// libperseq in each mode.
fn modes(given: Option<&Path>) -> Result<Vec<Arm>, Failure> {
    let library = whole(&LIBPERSEQ.find(given)?)?;
    let one = |mode: Mode| {
        let mut arm = Arm::new(mode.name(), Some(&library))?;
        arm.environment = vec![("PERSEQ_MODE".into(), mode.name().into())];
        arm.mode = Some(mode.name().into());
        arm.version = Some(env!("CARGO_PKG_VERSION").into());
        arm.obtained = Some("this project".into());
        Ok(arm)
    };
    Mode::ALL.into_iter().map(one).collect()
}

fn built(folder: Option<&Path>) -> Result<Vec<Arm>, Failure> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => match peers::default_folder() {
            Ok(folder) if folder.is_dir() => folder,
            _ => return Ok(Vec::new()),
        },
    };
    let mut arms = Vec::new();
    for peer in peers::built(&folder)?.into_iter().filter(|peer| peer.name != SYSTEM) {
        let library = peer.file.as_ref().map(|file| whole(&folder.join(file))).transpose()?;
        let mut arm = Arm::new(&peer.name, library.as_deref())?;
        (arm.version, arm.obtained, arm.environment) = (Some(peer.version), Some(peer.obtained), peer.environment);
        arms.push(arm);
    }
    Ok(arms)
}

/// `NAME=PATH[,VARIABLE=VALUE]...`.
fn named(text: &str) -> Result<Arm, Failure> {
    let wrong = || Failure::usage(format!("--allocator {text}: expected NAME=PATH.so, or NAME=PATH.so,VARIABLE=VALUE"));
    let mut parts = text.split(',');
    let (name, path) = parts.next().and_then(|part| part.split_once('=')).ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || path.is_empty() || !name.bytes().all(plain) {
        return Err(wrong());
    }
    let variable = |part: &str| {
        let (name, value) = part.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let environment = parts.map(variable).collect::<Result<_, Failure>>()?;
    Ok(Arm { environment, ..Arm::new(name, Some(&whole(Path::new(path))?))? })
}

/// The whole path of a library.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::file(path, "open", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocator_is_named_with_its_variables() {
        let arm = |text: &str| named(text).map(|arm| (arm.name, arm.environment)).map_err(|error| error.to_string());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(arm("null=/dev/null"), Ok(("null".into(), vec![])));
        let variables = vec![pair("PERSEQ_MODE", "central"), pair("EMPTY", "")];
        assert_eq!(arm("null=/dev/null,PERSEQ_MODE=central,EMPTY="), Ok(("null".into(), variables)));
        for wrong in
            ["null", "=/dev/null", "null=", "a b=/dev/null", "null=/dev/null,", "null=/dev/null,=1", "n=/dev/null,X"]
        {
            assert!(arm(wrong).is_err_and(|error| error.contains("expected NAME=PATH.so")), "{wrong}");
        }
        assert!(arm("null=/no/such.so").is_err_and(|error| error.contains("/no/such.so")));
    }
}
