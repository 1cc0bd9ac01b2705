//! What README.md and the other guides say of options, modes, files and commands is what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use perseq::Mode;

const GUIDES: [&str; 14] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ARTIFACT.md",
    "docs/architecture.md",
    "docs/adding-a-mode.md",
    "docs/cluster.md",
    "docs/kernels.md",
    "rseq/README.md",
    "preload/README.md",
    "experiments/README.md",
    "experiments/PROTOCOL.md",
    "results/README.md",
    "tests/test-kit/README.md",
];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rows of a table of all options, each after `prefix`.
fn options(prefix: &str) -> String {
    let row = |option: &perseq::RuntimeOption| {
        let perseq::RuntimeOption { name, meaning, expected, default, .. } = option;
        let default = if default.starts_with("not ") || default.contains(' ') {
            (*default).into()
        } else {
            format!("`{default}`")
        };
        format!("{prefix}| `{name}` | {meaning} | {expected} | {default} |\n")
    };
    perseq::options().iter().map(row).collect()
}

/// One list of options, in `src/process/options.rs`: the tables are made of it.
#[test]
fn the_tables_of_options_are_the_options() {
    for (file, prefix) in [("README.md", ""), ("src/lib.rs", "//! ")] {
        let text = read(file);
        let header = format!("{prefix}| environment | meaning | value | default |\n{prefix}|---|---|---|---|\n");
        let begin = text.find(&header).unwrap_or_else(|| panic!("{file} has no table of options")) + header.len();
        let length: usize = text[begin..]
            .split_inclusive('\n')
            .take_while(|line| line.starts_with(&format!("{prefix}| ")))
            .map(str::len)
            .sum();
        let table = options(prefix);
        if std::env::var_os("PERSEQ_TEST_BLESS").is_some() {
            let text = format!("{}{table}{}", &text[..begin], &text[begin + length..]);
            fs::write(root().join(file), text).expect("it can be written");
            continue;
        }
        let found = &text[begin..begin + length];
        assert_eq!(found, table, "{file}: PERSEQ_TEST_BLESS=1 cargo test --test readme makes it anew");
    }
}

#[test]
fn the_table_of_modes_has_every_mode() {
    let text = read("README.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| mode |")).skip(2);
    let named: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('`').nth(1).expect("a name").to_owned())
        .collect();
    assert_eq!(named, Mode::ALL.map(|mode| mode.name().to_owned()));
}

/// Links to files, and paths in the text that begin like one of the project's folders.
#[test]
fn the_files_that_guides_name_exist() {
    let mut missing = BTreeSet::new();
    for guide in GUIDES {
        let folder = Path::new(guide).parent().expect("a file").to_owned();
        let text = read(guide);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().expect("a part");
            if !target.is_empty() && !target.contains("://") && !root().join(&folder).join(target).exists() {
                missing.insert(format!("{guide}: {target}"));
            }
        }
        for code in text.split('`').skip(1).step_by(2) {
            let path = code.split([' ', ':']).next().expect("a part");
            let is_ours =
                ["src/", "tests/", "rseq/", "asm/", "preload/", "experiments/", "benches/", "build/", "docs/"]
                    .iter()
                    .any(|folder| path.starts_with(folder));
            let is_pattern = path.contains(['*', '<', '{']) || path.contains("NAME");
            if is_ours && !is_pattern && !root().join(path).exists() && !root().join(&folder).join(path).exists() {
                missing.insert(format!("{guide}: `{path}`"));
            }
        }
    }
    assert!(missing.is_empty(), "no such file: {missing:#?}");
}

/// Who has a test to write finds the question it belongs to.
#[test]
fn contributing_names_every_file_of_tests() {
    let text = read("CONTRIBUTING.md");
    let mut missing = BTreeSet::new();
    for folder in ["tests", "rseq/tests", "preload/tests", "experiments/tests", "tests/test-kit/tests"] {
        for entry in fs::read_dir(root().join(folder)).expect(folder) {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            let is_test = name.ends_with(".rs") || root().join(folder).join(&name).join("main.rs").exists();
            if is_test && !text.contains(&format!("| `{folder}/{name}` | ")) {
                missing.insert(format!("{folder}/{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "no row for {missing:#?}");
}

/// Tests, benchmarks, examples and packages that commands of the guides name.
#[test]
fn the_targets_that_guides_name_exist() {
    let lock = read("Cargo.lock");
    let packages: Vec<_> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"perseq")?.strip_suffix('"')).collect();
    let is_ours = |name: &str| name.strip_prefix("perseq").is_some_and(|rest| packages.contains(&rest));
    let folders = [".", "rseq", "preload", "experiments", "tests/test-kit"];
    let exists = |folder: &str, name: &str| {
        folders.iter().any(|package| {
            let folder = root().join(package).join(folder);
            folder.join(format!("{name}.rs")).exists() || folder.join(name).join("main.rs").exists()
        })
    };
    for guide in GUIDES {
        let text = read(guide);
        let words: Vec<_> = text.split([' ', '\n', '`']).collect();
        for pair in words.windows(2) {
            let right = match pair[0] {
                "--test" => exists("tests", pair[1]) || pair[1].contains("NAME"),
                "--bench" => exists("benches", pair[1]),
                "--example" => exists("examples", pair[1]) || pair[1].contains("NAME"),
                "-p" | "--package" => is_ours(pair[1]),
                _ => true,
            };
            assert!(right, "{guide}: {} {}", pair[0], pair[1]);
        }
    }
}
