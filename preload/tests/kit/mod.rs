//! Running a program on libperseq, in a mode.
#![allow(dead_code)] // each test binary uses a part of the kit

#[path = "../../../rseq/tests/kit/absence.rs"]
mod absence;
#[path = "../../../rseq/tests/kit/preloadable.rs"]
pub mod preloadable;

use allocator::Mode;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

#[allow(unused_imports)] // as above
pub use absence::{is_glibc, is_installed, not_tested};

/// The modes a program must run in.
pub const MODES: [&str; Mode::ALL.len()] = {
    let mut names = [""; Mode::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Mode::ALL[index].name();
        index += 1;
    }
    names
};

/// The library as users build it. Cargo builds no shared library for a test, so this does.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build("preload", &[]))
}

/// The library with assertions and checks of the order of locks.
pub fn debug_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build_as("dev", "debug", "preload-debug", &[]))
}

/// The library as users build it, with these arguments, in a folder of that name.
pub fn build(name: &str, arguments: &[&str]) -> PathBuf {
    build_as("release", "release", name, arguments)
}

fn build_as(profile: &str, subfolder: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Where Cargo is told in the environment what to build for, it has a folder more.
    let target = std::env::var("CARGO_BUILD_TARGET").unwrap_or_default();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", profile, "--package", "perseq-preload", "--target-dir"])
        .arg(&folder)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(status.success(), "libperseq.so does not build");
    preloadable::preloadable(folder.join(target).join(subfolder).join("libperseq.so"))
}

/// Runs `program`, on libperseq if a mode is given, and returns its output if it succeeded.
pub fn run(mode: Option<&str>, program: &str, arguments: &[&str]) -> Output {
    run_on(mode.map(|mode| (library(), mode)), program, arguments)
}

/// As [`run`], on this library in this mode.
pub fn run_on(library_and_mode: Option<(&Path, &str)>, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some((library, mode)) = library_and_mode {
        command.env("LD_PRELOAD", library).env("PERSEQ_MODE", mode);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} on {library_and_mode:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
