//! Makes the constants of `src/config.rs` and the size classes, from the file that `PERSEQ_BUILD_CONFIG` names or
//! from the defaults. What a file may say is in `build/default.toml`.

use std::path::{Path, PathBuf};

#[path = "build/config.rs"]
mod config;

const VARIABLE: &str = "PERSEQ_BUILD_CONFIG";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let path = match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => here.join(path), // an absolute one stays
        None => here.join("build/default.toml"),
    };
    println!("cargo::rerun-if-changed={}", path.display());
    match configure(&path) {
        Ok(rust) => {
            let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("config.rs");
            std::fs::write(&out, rust).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
        }
        // One line that cargo shows, and an end.
        Err(error) => println!("cargo::error={VARIABLE}: {}: {error}", path.display()),
    }
}

fn configure(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(config::Config::parse(&text)?.to_rust())
}
