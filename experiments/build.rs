//! Tells the binary what it was built from, for the manifest of each run.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/index");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    tell("BUILD_RUSTC", output(&rustc, &["--version"]));
    tell("BUILD_TARGET", std::env::var("TARGET").ok());
    tell("BUILD_OPT_LEVEL", std::env::var("OPT_LEVEL").ok());
    tell("BUILD_COMMIT", output("git", &["rev-parse", "HEAD"]));
    tell("BUILD_DIRTY", output("git", &["status", "--porcelain"]).map(|changes| (!changes.is_empty()).to_string()));
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
