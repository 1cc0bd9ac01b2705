//! What is published: the packages hold what builds them and what is read beside them, and nothing else; the changelog and
//! the citation speak of this version. The repository is a small download too.

#[path = "../rseq/tests/kit/absence.rs"]
mod absence;

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files of a package, as `cargo package` would upload them.
fn files(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--quiet", "--offline", "--allow-dirty", "--package", package])
        .current_dir(ROOT)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{package}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn packages_hold_what_builds_them() {
    for (package, needed) in [
        ("perseq", &["src/lib.rs", "build.rs", "build/config.rs", "build/default.toml", "CHANGELOG.md"] as &[&str]),
        ("perseq-rseq", &["src/lib.rs", "asm/README.md", "asm/x86_64/pop.s", "asm/aarch64/pop.s"]),
        ("perseq-test-kit", &["src/lib.rs", "src/subject/c.rs", "examples/preloaded.rs"]),
    ] {
        let files = files(package);
        for file in needed.iter().chain(&["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"]) {
            assert!(files.iter().any(|found| found == file), "{package} lacks {file}: {files:?}");
        }
        let is_data =
            |file: &&String| ["results/", "experiments/", "target/", ".ci"].iter().any(|name| file.contains(name));
        assert_eq!(files.iter().filter(is_data).collect::<Vec<_>>(), Vec::<&String>::new(), "{package}");
        let sizes = files.iter().filter_map(|file| {
            let folder = match package {
                "perseq" => ROOT.into(),
                "perseq-rseq" => Path::new(ROOT).join("rseq"),
                _ => Path::new(ROOT).join("tests/test-kit"),
            };
            std::fs::metadata(folder.join(file)).ok() // not those that cargo makes
        });
        assert!(sizes.map(|file| file.len()).sum::<u64>() < 2 << 20, "{package} is a small download");
    }
}

/// Who clones it downloads every file, of every commit. Rows of a run are compressed; results/README.md says how.
#[test]
fn no_file_of_the_repository_is_large() {
    const MOST_BYTES: u64 = 2 << 20;
    let what = "the sizes of the files under version control";
    let output = match Command::new("git").args(["ls-files", "-z"]).current_dir(ROOT).output() {
        Ok(output) => output,
        Err(why) => return absence::not_tested("git", what, format_args!("git: {why}")),
    };
    if !output.status.success() || output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return absence::not_tested(
            "repository",
            what,
            format_args!("git ls-files: {}, {}", output.status, said.trim()),
        );
    }
    let names = String::from_utf8(output.stdout).expect("names in UTF-8");
    let size = |name: &str| std::fs::metadata(Path::new(ROOT).join(name)).map_or(0, |file| file.len());
    let sizes: Vec<_> = names.split_terminator('\0').map(|name| (name, size(name))).collect();
    assert!(sizes.contains(&("Cargo.toml", size("Cargo.toml"))) && size("Cargo.toml") > 0, "{sizes:?}");
    let large: Vec<_> = sizes.iter().filter(|(_, bytes)| *bytes > MOST_BYTES).collect();
    assert!(large.is_empty(), "more than {MOST_BYTES} bytes each: {large:?}");
}

#[test]
fn the_newest_release_of_the_changelog_is_what_is_cited() {
    let read = |name: &str| std::fs::read_to_string(Path::new(ROOT).join(name)).expect(name);
    let (changelog, citation) = (read("CHANGELOG.md"), read("CITATION.cff"));
    let field = |name: &str| {
        let line = citation.lines().find(|line| line.starts_with(name)).expect("the field");
        line.split_once(": ").expect("a value").1.to_owned()
    };
    let entries = || changelog.lines().filter(|line| line.starts_with("## "));
    let newest = entries().find(|line| *line != "## Unreleased").expect("a release");
    assert!(entries().skip(1).all(|line| line != "## Unreleased"), "what is not released stands first");
    let version = field("version");
    assert_eq!(newest, format!("## {version} - {}", field("date-released")));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}
