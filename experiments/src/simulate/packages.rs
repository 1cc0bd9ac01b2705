//! QEMU and a kernel from Debian's archive, unpacked in a folder. Nothing is installed.

use crate::checksum;
use crate::failure::Failure;
use crate::peers;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The emulator's package. Versions from 10 on name the wrong CPU where all run in one thread; the self-test finds it.
const EMULATOR: &str = "qemu-system-x86";
/// A package without files that depends on the newest kernel of its line.
const KERNEL: &str = "linux-image-6.12-cloud-amd64";
const FILE: &str = "packages.json";

/// What was unpacked.
#[derive(Debug, Serialize, Deserialize)]
struct Unpacked {
    /// Package of the kernel.
    kernel: String,
    /// Versions, by package.
    versions: Vec<(String, String)>,
    /// SHA-256 of emulator and kernel.
    sums: [String; 2],
}

/// An emulator and a kernel that can be used.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    unpacked: Unpacked,
}

impl Packages {
    /// What is in this folder, fetched if it is not there. The error says exactly what is missing.
    pub fn find(folder: PathBuf) -> Result<Packages, Failure> {
        let path = folder.join(FILE);
        if let Some(unpacked) = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()) {
            let known = Packages { folder: folder.clone(), unpacked };
            if known.sums().is_ok_and(|sums| sums == known.unpacked.sums) {
                return Ok(known);
            }
        }
        eprintln!("fetching QEMU and a kernel from Debian's archive into {}", folder.display());
        let fetched = Packages::fetch(folder).map_err(|error| Failure::host(format!("simulate: {error}")))?;
        let json = serde_json::to_string_pretty(&fetched.unpacked).map_err(|error| Failure::host(error.to_string()))?;
        crate::written::whole(&path, json.as_bytes())?;
        Ok(fetched)
    }

    fn fetch(folder: PathBuf) -> Result<Packages, String> {
        let (archives, tree) = (folder.join("archives"), folder.join("tree"));
        for path in [&archives, &tree] {
            drop(fs::remove_dir_all(path)); // absent the first time
            fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        // What an installation would add; what is installed already is there to be used.
        let plan = said("apt-get", &["install", "-s", "--no-install-recommends", EMULATOR], &folder)?;
        let mut wanted: Vec<_> = plan.lines().filter_map(added).map(str::to_owned).collect();
        if !wanted.iter().any(|name| name == EMULATOR) {
            wanted.push(EMULATOR.into()); // it is installed: the same version once more, unpacked
        }
        let depends = said("apt-cache", &["depends", KERNEL], &folder)?;
        let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let kernel = kernel.map(|name| format!("linux-image-{name}")).ok_or(format!("no package {KERNEL}"))?;
        wanted.push(kernel.clone());
        let arguments: Vec<_> = ["download"].into_iter().chain(wanted.iter().map(String::as_str)).collect();
        said("apt-get", &arguments, &archives)?;
        let mut versions = Vec::new();
        let entries = fs::read_dir(&archives).map_err(|error| format!("{}: {error}", archives.display()))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let (path, tree) = (path.to_string_lossy(), tree.to_string_lossy());
            said("dpkg-deb", &["-x", &path, &tree], &folder)?;
            let field = |name: &str| said("dpkg-deb", &["-f", &path, name], &folder).map(|text| text.trim().to_owned());
            versions.push((field("Package")?, field("Version")?));
        }
        drop(fs::remove_dir_all(&archives)); // only takes room
        let unpacked = Unpacked { kernel, versions, sums: Default::default() };
        let mut packages = Packages { folder, unpacked };
        packages.unpacked.sums = packages.sums()?;
        Ok(packages)
    }

    fn sums(&self) -> Result<[String; 2], String> {
        let sum = |path: PathBuf| checksum::of_file(&path).map_err(|error| format!("{}: {error}", path.display()));
        Ok([sum(self.emulator())?, sum(self.kernel())?])
    }

    /// The folder of all this.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The emulator.
    pub fn emulator(&self) -> PathBuf {
        self.folder.join("tree/usr/bin/qemu-system-x86_64")
    }

    /// Where the emulator finds its firmware.
    pub fn firmware(&self) -> [PathBuf; 2] {
        ["tree/usr/share/qemu", "tree/usr/share/seabios"].map(|path| self.folder.join(path))
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        let release = self.unpacked.kernel.trim_start_matches("linux-image-");
        self.folder.join(format!("tree/boot/vmlinuz-{release}"))
    }

    /// Variables of the emulator: where the libraries are that are not installed.
    pub fn environment(&self) -> [(String, String); 1] {
        let folders = ["tree/usr/lib/x86_64-linux-gnu", "tree/lib/x86_64-linux-gnu"];
        let folders = folders.map(|path| self.folder.join(path).display().to_string());
        [("LD_LIBRARY_PATH".into(), folders.join(":"))]
    }

    /// Versions of emulator and kernel, for the manifest.
    pub fn versions(&self) -> String {
        let of = |name: &str| self.unpacked.versions.iter().find(|(package, _)| package == name);
        let line = |name: &str| of(name).map_or_else(|| name.to_owned(), |(name, version)| format!("{name} {version}"));
        format!("{}, {}", line(EMULATOR), line(&self.unpacked.kernel))
    }
}

/// The folder in the user's cache, created.
pub fn folder() -> Result<PathBuf, Failure> {
    let folder = peers::default_folder()?.with_file_name("simulate");
    fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, "create", error))?;
    Ok(folder)
}

/// The package that a line of a simulated installation adds: `Inst NAME (VERSION …`, and not `Inst NAME [OLD] (NEW …`.
fn added(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    rest.starts_with('(').then_some(name)
}

/// Runs a program in a folder and returns what it printed. The error is its last line.
fn said(program: &str, arguments: &[&str], folder: &Path) -> Result<String, String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").current_dir(folder).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.starts_with("E:")).or(text.lines().last()).unwrap_or("failed");
    Err(format!("{program} {}: {line}; `apt-get update` may help", arguments[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_installation_adds_is_fetched() {
        assert_eq!(added("Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])"), Some("seabios"));
        assert_eq!(added("Inst qemu-user [1:7.2-7] (1:7.2-8 Debian:12.15/oldstable [amd64])"), None);
        assert_eq!(added("Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])"), None);
    }

    #[test]
    fn a_program_that_fails_says_its_last_line() {
        let error = said("sh", &["-c", "echo first >&2; echo E: why >&2; exit 1"], Path::new("/")).unwrap_err();
        assert!(error.contains("E: why"), "{error}");
        assert!(said("perseq-no-such-program", &["x"], Path::new("/")).is_err());
    }
}
