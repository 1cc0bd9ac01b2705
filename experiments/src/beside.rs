//! What a build of the workspace leaves beside this program, and an installation in folders near it: libraries that
//! commands preload or hand on.

use crate::failure::Failure;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
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

    /// The whole path of the one given, or else of the one beside this program, or where `install.sh` puts it. None: none
    /// was given, and none is there. The error names a path that was given and cannot be opened.
    pub fn look(&self, given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        if let Some(path) = given {
            let fail =
                |why: String| Failure::usage(format!("{} {}: {why}; {}", self.option, path.display(), self.made_by()));
            let whole = path.canonicalize().map_err(|error| fail(error.to_string()))?;
            return if whole.is_file() { Ok(Some(whole)) } else { Err(fail("is no file".into())) };
        }
        let own = std::env::current_exe().ok();
        let folder = own.as_deref().and_then(Path::parent);
        let places = ["", "../lib/perseq", "../lib"].into_iter().filter_map(|place| Some(folder?.join(place)));
        Ok(places.filter_map(|place| place.join(self.file).canonicalize().ok()).next())
    }

    /// As [`look`](Self::look), where the command cannot do without. The error says what makes one.
    pub fn find(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        self.look(given)?.ok_or_else(|| self.missing())
    }

    /// What to say where there is none.
    pub fn missing(&self) -> Failure {
        let Library { file, option, .. } = self;
        let places = "beside this program or in ../lib/perseq or ../lib from there";
        Failure::usage(format!("no {file} {places}; {}, or give {option} PATH", self.made_by()))
    }

    fn made_by(&self) -> String {
        format!("`cargo build --release -p {}` makes {}", self.package, self.file)
    }
}

/// The whole path of a library as it can be preloaded: the dynamic linker cuts LD_PRELOAD at blanks and colons, so where
/// there are some it is that of a link in the folder for temporary files. The error says why there is none.
pub fn preloadable(library: &Path) -> Result<PathBuf, String> {
    let cut = |path: &Path| path.to_string_lossy().contains([' ', ':']);
    if !cut(library) {
        return Ok(library.to_owned());
    }
    let user = nix::unistd::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("perseq-preload-{user}"));
    if cut(&folder) {
        return Err(format!(
            "{}: LD_PRELOAD is cut at blanks and colons, and the folder for temporary files, {}, has one, too; set TMPDIR",
            library.display(),
            folder.display()
        ));
    }
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(named(error)),
        _ => {}
    }
    // Whoever can write there says what programs of this user run.
    let found = fs::symlink_metadata(&folder).map_err(named)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
        return Err(format!("{}: expected a folder that only this user can write to", folder.display()));
    }
    let mut hash = DefaultHasher::new();
    library.hash(&mut hash);
    let link = folder.join(format!("{:016x}.so", hash.finish()));
    if fs::read_link(&link).is_ok_and(|to| to == library) {
        return Ok(link);
    }
    // It is whole when it gets its name, whoever else makes it now.
    let draft = folder.join(format!("{}.draft", std::process::id()));
    drop(fs::remove_file(&draft));
    symlink(library, &draft).and_then(|()| fs::rename(&draft, &link)).map_err(named)?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_is_preloaded_by_a_link_without() {
        assert_eq!(preloadable(Path::new("/lib/plain.so")).unwrap(), Path::new("/lib/plain.so"));
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["a b.so", "a:b.so"].map(|name| folder.path().join(name));
        let links = [&one, &two].map(|library| preloadable(library).unwrap());
        assert_ne!(links[0], links[1]);
        for (link, library) in links.iter().zip([one, two]) {
            assert!(!link.to_str().unwrap().contains([' ', ':']), "{link:?}");
            assert_eq!(fs::read_link(link).unwrap(), library);
            assert_eq!(preloadable(&library).unwrap(), *link);
            fs::remove_file(link).unwrap();
        }
    }

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
