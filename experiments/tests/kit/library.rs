//! Libraries of the workspace that tests hand to perseq.
#![allow(dead_code)] // each test binary uses its part

#[path = "../../../rseq/tests/kit/preloadable.rs"]
mod preloadable;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library of the package in `experiments/FOLDER`, built as it is now into a folder of its own.
pub fn built(folder: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    assert!(cargo.status().expect("cargo starts").success());
    preloadable::preloadable(target.join(format!("debug/libperseq_{}.so", folder.replace('-', "_"))))
}

/// libperseq, built as it is now, where its own tests build it.
pub fn libperseq() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload-debug");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--package", "perseq-preload", "--target-dir"]).arg(&target);
    assert!(cargo.status().expect("cargo starts").success());
    preloadable::preloadable(target.join("debug/libperseq.so"))
}
