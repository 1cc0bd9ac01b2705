//! What a build of the workspace leaves beside this program: libraries that commands preload or hand on.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// A library that is built beside this program.
pub struct Library {
    file: &'static str,
    package: &'static str,
    option: &'static str,
}

/// The allocator behind malloc and free.
pub const LIBPERSEQ: Library = Library::new("libperseq.so", "perseq-preload", "--libperseq");
/// The model of caches, for QEMU.
pub const CACHE_PLUGIN: Library = Library::new("libperseq_cache_plugin.so", "perseq-cache-plugin", "--plugin");
/// The plugin that is loaded and unloaded in a storm.
pub const STORM_PLUGIN: Library = Library::new("libperseq_plugin.so", "perseq-plugin", "--plugin");
/// What records a program's allocations.
pub const RECORDER: Library = Library::new("libperseq_recorder.so", "perseq-recorder", "--recorder");

impl Library {
    const fn new(file: &'static str, package: &'static str, option: &'static str) -> Library {
        Library { file, package, option }
    }

    /// The whole path of the one given, or else of the one beside this program. None: none was given, and none is
    /// there. The error names a path that was given and cannot be opened.
    pub fn look(&self, given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        if let Some(path) = given {
            let fail =
                |why: String| Failure::usage(format!("{} {}: {why}; {}", self.option, path.display(), self.made_by()));
            let whole = path.canonicalize().map_err(|error| fail(error.to_string()))?;
            return if whole.is_file() { Ok(Some(whole)) } else { Err(fail("is no file".into())) };
        }
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(self.file)));
        Ok(beside.and_then(|path| path.canonicalize().ok()))
    }

    /// As [`look`](Self::look), where the command cannot do without. The error says what makes one.
    pub fn find(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        self.look(given)?.ok_or_else(|| self.missing())
    }

    /// What to say where there is none.
    pub fn missing(&self) -> Failure {
        let Library { file, option, .. } = self;
        Failure::usage(format!("no {file} beside this program; {}, or give {option} PATH", self.made_by()))
    }

    fn made_by(&self) -> String {
        format!("`cargo build --release -p {}` makes {}", self.package, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        for library in [LIBPERSEQ, CACHE_PLUGIN, STORM_PLUGIN, RECORDER] {
            let error = library.look(Some(Path::new("no/such.so"))).unwrap_err().to_string();
            assert!(error.contains(&format!("{} no/such.so: ", library.option)), "{error}");
            assert!(error.contains(library.package), "{error}");
            assert!(library.look(Some(Path::new("/"))).unwrap_err().to_string().contains(" /: is no file"));
        }
    }

    #[test]
    fn what_is_given_comes_before_what_lies_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.so");
        std::fs::write(&path, "").unwrap();
        assert_eq!(LIBPERSEQ.find(Some(&path)).unwrap(), path.canonicalize().unwrap());
        let own = std::env::current_exe().unwrap();
        let name: &'static str = own.file_name().unwrap().to_str().unwrap().to_owned().leak();
        let beside = Library { file: name, ..LIBPERSEQ };
        assert_eq!(beside.find(None).unwrap(), own.canonicalize().unwrap());
        assert_eq!(beside.find(Some(&path)).unwrap(), path.canonicalize().unwrap());
        let absent = Library { file: "libno-such.so", ..LIBPERSEQ };
        assert_eq!(absent.look(None).unwrap(), None);
        assert!(absent.find(None).unwrap_err().to_string().contains("no libno-such.so beside this program"));
    }
}
