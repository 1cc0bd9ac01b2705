//! Running a program on libperseq, in a mode.
#![allow(dead_code)] // each test binary uses a part of the kit

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The modes a program must run in.
pub const MODES: [&str; 7] =
    ["percpu", "percpu-mmcid", "perthread", "perthread-drain", "sharded", "percpu-lock", "central"];

/// The library as users build it. Cargo builds no shared library for a test, so this does.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build("preload", &[]))
}

/// The library, built with these arguments, in a folder of that name.
pub fn build(name: &str, arguments: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "perseq-preload", "--target-dir"])
        .arg(&folder)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(status.success(), "libperseq.so does not build");
    folder.join("release/libperseq.so")
}

/// Runs `program`, on libperseq if a mode is given, and returns its output if it succeeded.
pub fn run(mode: Option<&str>, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(mode) = mode {
        command.env("LD_PRELOAD", library()).env("PERSEQ_MODE", mode);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} in mode {mode:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
