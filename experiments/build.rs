//! Tells the binary what it was built from, for the manifest of each run.

#[path = "src/provenance/split.rs"]
mod split;

use std::collections::BTreeSet;
use std::process::Command;

fn main() {
    predictions();
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/index");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    tell("BUILD_RUSTC", output(&rustc, &["--version"]));
    tell("BUILD_TARGET", std::env::var("TARGET").ok());
    tell("BUILD_OPT_LEVEL", std::env::var("OPT_LEVEL").ok());
    tell("BUILD_TARGET_FEATURES", std::env::var("CARGO_CFG_TARGET_FEATURE").ok());
    println!("cargo:rerun-if-changed=../Cargo.toml");
    tell("BUILD_LTO", release_lto());
    tell("BUILD_COMMIT", output("git", &["rev-parse", "HEAD"]));
    tell("BUILD_DIRTY", output("git", &["status", "--porcelain"]).map(|changes| (!changes.is_empty()).to_string()));
}

/// Cargo does not say; the workspace's manifest does.
fn release_lto() -> Option<String> {
    let manifest = std::fs::read_to_string("../Cargo.toml").ok()?;
    let release = manifest.split("[profile.release]").nth(1)?.split("\n[").next()?;
    let line = release.lines().find_map(|line| line.strip_prefix("lto = "))?;
    Some(line.trim_matches('"').to_owned())
}

/// Every text that a prediction ever had, with the commit it first appeared in: what `src/provenance.rs` reads. Without a
/// history there are none.
fn predictions() {
    let (mut seen, mut entries) = (BTreeSet::new(), String::new());
    let commits = output("git", &["log", "--reverse", "--no-merges", "--format=%H %cs", "--", "definitions"]);
    for line in commits.unwrap_or_default().lines() {
        let Some((commit, date)) = line.split_once(' ') else { continue };
        let changed =
            ["diff-tree", "--no-commit-id", "--name-only", "--relative", "-r", "--root", commit, "--", "definitions"];
        for path in output("git", &changed).unwrap_or_default().lines() {
            let name = path.rsplit('/').next().unwrap_or(path);
            let Some(text) = output("git", &["show", &format!("{commit}:./{path}")]) else { continue };
            for prediction in split::predictions(&text) {
                if seen.insert((name.to_owned(), prediction.clone())) {
                    entries += &format!("({name:?}, {commit:?}, {date:?}, {prediction:?}),\n");
                }
            }
        }
    }
    let folder = std::env::var("OUT_DIR").unwrap_or_else(|_| ".".into());
    let path = format!("{folder}/predictions.rs");
    std::fs::write(&path, format!("&[\n{entries}]\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Sets a variable for the compiler, unless there is nothing to say.
fn tell(name: &str, value: Option<String>) {
    if let Some(value) = value {
        println!("cargo:rustc-env={name}={value}");
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
