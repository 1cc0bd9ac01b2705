//! Libraries where the dynamic linker can be told to preload them: it cuts what it is told at blanks and colons.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{env, fs, process};

/// The library itself, or a copy where its path cannot be preloaded.
pub fn preloadable(library: PathBuf) -> PathBuf {
    if !library.to_string_lossy().contains([' ', ':']) {
        return library;
    }
    let mut hash = DefaultHasher::new();
    // Another user cannot write over this one's.
    (&library, fs::metadata("/proc/self").expect("a process").uid()).hash(&mut hash);
    let folder = env::temp_dir().join(format!("perseq-tests-{:016x}", hash.finish()));
    fs::create_dir_all(&folder).expect("a folder for a copy");
    let place = folder.join(library.file_name().expect("a file"));
    // Programs of tests run beside each other: a copy is whole when it gets its name.
    let draft = place.with_extension(process::id().to_string());
    fs::copy(&library, &draft).expect("a copy");
    fs::rename(&draft, &place).expect("a name");
    place
}
