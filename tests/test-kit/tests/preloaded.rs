//! The example that tests a preloaded library: on libraries that are right, and on one that is wrong.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The folder of the examples, as they are now: `cargo test --test preloaded` does not build them.
fn examples() -> PathBuf {
    let program = std::env::current_exe().expect("this program"); // target/PROFILE/deps/preloaded-HASH
    let profile = program.ancestors().nth(2).expect("target/PROFILE");
    let name = match profile.file_name().and_then(|name| name.to_str()).expect("a profile") {
        "debug" => "dev",
        other => other,
    };
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--offline", "--examples", "--profile", name, "--target-dir"]);
    command.arg(profile.parent().expect("a target folder")).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(command.status().expect("cargo starts").success(), "{command:?}");
    profile.join("examples")
}

fn run(library: &str, wrong: Option<&str>, arguments: &[&str]) -> Output {
    let folder = examples();
    let mut command = Command::new(folder.join("preloaded"));
    // The linker cuts what it is told to preload at blanks, and a folder not.
    command.args(arguments).env("LD_LIBRARY_PATH", &folder).env("LD_PRELOAD", library);
    if let Some(wrong) = wrong {
        command.env("WRONG_MALLOC", wrong);
    }
    command.output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_preloaded_library() {
    for library in ["", "libwrong_malloc.so"] {
        let output = run(library, None, &["15", "3"]);
        let said = text(&output.stdout);
        assert!(output.status.success() && said.starts_with("nothing is wrong: "), "{library}: {output:?}");
    }
    for (wrong, kind, most) in [("alignment", "Misaligned at ", 2), ("errno", "Errno at ", 1)] {
        let output = run("libwrong_malloc.so", Some(wrong), &["100", "3"]);
        let said = text(&output.stdout);
        assert!(output.status.code() == Some(1) && said.starts_with(kind), "{wrong}: {output:?}");
        // What it is, how it was shrunk, the operations, and the seed.
        assert!(said.lines().count() <= 3 + most, "{wrong}: {said}");
    }
}

#[test]
fn arguments_that_are_not_understood() {
    for arguments in [&["many"] as &[_], &["5", "-1"], &["5", "1", "handlers"]] {
        let output = run("", None, arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("usage: preloaded"), "{arguments:?}: {output:?}");
    }
}
