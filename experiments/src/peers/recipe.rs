//! From a registry to a library that can be preloaded. Everything happens below one folder; nothing is installed.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a library is made from the sources in a crate.
#[derive(Debug)]
pub enum Recipe {
    /// One call of a compiler.
    Compile {
        /// `cc` or `c++`; `CC` or `CXX` in the environment replace it.
        compiler: &'static str,
        /// Source files, below the crate's folder.
        files: &'static [&'static str],
        /// Include folders, below the crate's folder.
        include: &'static [&'static str],
        /// Flags.
        flags: &'static [&'static str],
        /// Flags that follow the files.
        libraries: &'static [&'static str],
    },
    /// `configure` and `make`, in a copy of the sources.
    Configure {
        /// The sources, below the crate's folder.
        folder: &'static str,
        /// The script, below the crate's folder.
        configure: &'static str,
        /// Its arguments.
        arguments: &'static [&'static str],
        /// What to make.
        target: &'static str,
        /// The library, below the copy.
        library: &'static str,
    },
    /// The static library that the crate's own build makes, turned into a shared one.
    Archive {
        /// Features of the crate.
        features: &'static [&'static str],
        /// Further flags of the C++ compiler.
        compiler_flags: &'static str,
        /// Name of the static library.
        archive: &'static str,
    },
}

/// Makes `library` from a crate, in `folder`. The error is one line and names the log if there is one.
pub fn from_crate(package: &str, version: &str, recipe: &Recipe, folder: &Path, library: &Path) -> Result<(), String> {
    let features: &[&str] = if let Recipe::Archive { features, .. } = recipe { features } else { &[] };
    let project = project(package, version, features, folder)?;
    let sources = fetch(package, &project, folder)?;
    match recipe {
        Recipe::Compile { compiler, files, include, flags, libraries } => {
            let mut command = compile(compiler);
            command.args(*flags).args(include.iter().map(|path| format!("-I{}", sources.join(path).display())));
            command.arg("-shared").args(files.iter().map(|file| sources.join(file)));
            command.args(*libraries).arg("-o").arg(library);
            logged(command, folder).map(drop)
        }
        Recipe::Configure { folder: tree, configure, arguments, target, library: made } => {
            let copy = folder.join("tree");
            drop(fs::remove_dir_all(&copy)); // absent at the first build
            let mut command = Command::new("cp");
            command.arg("-r").arg(sources.join(tree)).arg(&copy);
            logged(command, folder)?;
            // The script looks for its helpers beside itself.
            fs::copy(sources.join(configure), copy.join("configure")).map_err(|error| format!("configure: {error}"))?;
            let mut command = Command::new("sh");
            command.arg("configure").args(*arguments).current_dir(&copy);
            logged(command, folder)?;
            let mut command = Command::new("make");
            command.arg(format!("-j{}", jobs())).arg(target).current_dir(&copy);
            logged(command, folder)?;
            fs::copy(copy.join(made), library).map(drop).map_err(|error| format!("{made}: {error}"))
        }
        Recipe::Archive { compiler_flags, archive, .. } => {
            let mut command = cargo();
            command.args(["build", "--release", "--manifest-path"]).arg(&project);
            command.env("CXXFLAGS", compiler_flags).env("CARGO_TARGET_DIR", folder.join("target"));
            logged(command, folder)?;
            let built = find(&folder.join("target/release/build"), archive)
                .ok_or_else(|| format!("the build of {package} left no {archive}"))?;
            let mut command = compile("c++");
            command.args(["-shared", "-Wl,--whole-archive"]).arg(built).arg("-Wl,--no-whole-archive");
            command.args(["-static-libstdc++", "-static-libgcc", "-lpthread", "-o"]).arg(library);
            logged(command, folder).map(drop)
        }
    }
}

/// Unpacks a package of Debian in `folder`, copies its library, and returns the package's version.
pub fn from_debian(package: &str, prefix: &str, folder: &Path, library: &Path) -> Result<String, String> {
    let tree = folder.join("tree");
    drop(fs::remove_dir_all(&tree)); // absent the first time
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    let mut command = Command::new("apt-get");
    command.args(["download", package]).current_dir(&tree);
    logged(command, folder)?;
    let archive = find_by(&tree, &|name| name.ends_with(".deb")).ok_or("apt-get downloaded no package")?;
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(&archive).arg(&tree);
    logged(command, folder)?;
    let found = find_by(&tree, &|name| name.starts_with(prefix)).ok_or(format!("{package} holds no {prefix}"))?;
    fs::copy(&found, library).map_err(|error| format!("{}: {error}", found.display()))?;
    let mut command = Command::new("dpkg-deb");
    command.args(["-f"]).arg(&archive).arg("Version");
    Ok(logged(command, folder)?.trim().to_owned())
}

/// A crate of no code that depends on the one we want, at exactly one version. Returns its manifest.
fn project(package: &str, version: &str, features: &[&str], folder: &Path) -> Result<PathBuf, String> {
    let project = folder.join("fetch");
    let fail = |error: std::io::Error| format!("{}: {error}", project.display());
    fs::create_dir_all(project.join("src")).map_err(fail)?;
    fs::write(project.join("src/lib.rs"), "").map_err(fail)?;
    let manifest = format!(
        "[package]\nname = \"perseq-peer\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
         [dependencies]\n{package} = {{ version = \"={version}\", default-features = false, features = {features:?} }}\n"
    );
    fs::write(project.join("Cargo.toml"), manifest).map_err(fail)?;
    Ok(project.join("Cargo.toml"))
}

/// Downloads the crate, its checksum verified by cargo, and returns its folder.
fn fetch(package: &str, project: &Path, folder: &Path) -> Result<PathBuf, String> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--filter-platform", env!("BUILD_TARGET"), "--manifest-path"]);
    let text = logged(
        {
            command.arg(project);
            command
        },
        folder,
    )?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let manifest = metadata["packages"].as_array().into_iter().flatten().find(|found| found["name"] == package);
    let manifest = manifest.and_then(|found| found["manifest_path"].as_str());
    let folder = manifest.and_then(|path| Path::new(path).parent());
    folder.map(Path::to_owned).ok_or_else(|| format!("cargo metadata does not name {package}"))
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Under `cargo run` these describe our own build.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

fn compile(default: &'static str) -> Command {
    let variable = if default == "cc" { "CC" } else { "CXX" };
    Command::new(std::env::var_os(variable).unwrap_or_else(|| default.into()))
}

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a command, appends all it says to `folder/log`, and returns what it printed.
fn logged(mut command: Command, folder: &Path) -> Result<String, String> {
    let log = folder.join("log");
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let mut text = fs::read(&log).unwrap_or_default();
    text.extend(format!("$ {command:?}\n").bytes());
    text.extend(&output.stderr);
    if !output.status.success() {
        text.extend(&output.stdout);
    }
    fs::write(&log, text).map_err(|error| format!("{}: {error}", log.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("error") || line.starts_with("E:")).or(said.lines().last());
    Err(format!("{program}: {}; see {}", line.unwrap_or("failed").trim(), log.display()))
}

/// The first file below `folder` with this name.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    find_by(folder, &|found| found == name)
}

/// The first regular file below `folder` whose name will do. In order of names, so that it is always the same.
fn find_by(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        let kind = fs::symlink_metadata(&path).ok()?;
        if kind.is_dir() {
            return find_by(&path, wanted);
        }
        let name = path.file_name()?.to_str()?;
        (wanted(name) && fs::metadata(&path).is_ok_and(|found| found.is_file())).then_some(path.clone())
    })
}
