//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

const EXAMPLES: [(&str, &[&str]); 5] = [
    ("global_allocator", &["80000 strings", "percpu"]),
    ("heap", &["the sum is 4999950000; 1600000 bytes in use"]),
    ("pages", &["640 pages of 8192 bytes, zero: true", "given back"]),
    ("objects", &["for 40000 users"]),
    ("statistics", &["in use: ", "go back to the kernel", "cache of ", "all of it as JSON: "]),
];

/// Where Cargo builds the examples of `cargo test`: target/PROFILE/examples.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program"); // target/PROFILE/deps/examples-HASH
    program.ancestors().nth(2).expect("target/PROFILE").join("examples")
}

/// Whether the program is there and none of the sources that Cargo wrote down for it has changed since.
fn is_built(program: &Path) -> bool {
    let changed = |path: &Path| std::fs::metadata(path)?.modified();
    let (Ok(built), Ok(list)) = (changed(program), std::fs::read_to_string(program.with_extension("d"))) else {
        return false;
    };
    // PROGRAM: SOURCE SOURCE..., with a backslash before each blank of a path.
    let sources = list.trim_end().split_once(": ").expect("a rule").1.replace("\\ ", "\0");
    sources.split(' ').all(|source| changed(Path::new(&source.replace('\0', " "))).is_ok_and(|time| time <= built))
}

/// The examples, as they are now: `cargo test` builds them, `cargo test --test examples` does not.
fn build() -> PathBuf {
    let folder = folder();
    if EXAMPLES.iter().all(|(name, _)| is_built(&folder.join(name))) {
        return folder;
    }
    let profile = folder.parent().expect("target/PROFILE");
    let name = match profile.file_name().and_then(|name| name.to_str()).expect("a profile") {
        "debug" => "dev",
        other => other,
    };
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--offline", "--package", "perseq", "--profile", name, "--target-dir"]);
    command.arg(profile.parent().expect("a target folder")).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in EXAMPLES {
        command.args(["--example", name]);
    }
    assert!(command.status().expect("cargo starts").success(), "{command:?}");
    folder
}

#[test]
fn the_examples_do_what_they_say() {
    let folder = build();
    for (name, lines) in EXAMPLES {
        let output = Command::new(folder.join(name)).env_remove("PERSEQ_MODE").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{name}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        for line in lines {
            // Where rseq does not work, the mode's line says what runs in its place, and for what.
            assert!(said.contains(line), "{name} does not say {line:?}: {said}");
        }
    }
}

/// The list above is the folder; that of C is built by the tests of libperseq.
#[test]
fn no_example_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".rs"))
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    found.sort();
    let mut named = EXAMPLES.map(|(name, _)| name);
    named.sort();
    assert_eq!(found, named);
}
