//! `perseq torture`: storms pass where the heap is sound, and are lost where it is not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn torture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perseq")).arg("torture").args(arguments).output().expect("perseq starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn all(output: &Output) -> String {
    format!("{:?}\n{}{}", output.status, stdout(output), String::from_utf8_lossy(&output.stderr))
}

/// The plugin, built from this workspace into a folder of its own: cargo builds no shared library for a test.
fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--offline", "--package", "perseq-plugin", "--target-dir"]);
        let status = command.arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.expect("cargo starts").success(), "the plugin does not build");
        target.join("debug/libperseq_plugin.so")
    })
}

/// The names of the storms, by the command itself.
fn storms() -> Vec<String> {
    let list = stdout(&torture(&["--list"]));
    list.lines().map(|line| line.split_whitespace().next().expect("a name").to_owned()).collect()
}

const MODES: [&str; 8] =
    ["percpu", "percpu-mmcid", "perthread", "perthread-drain", "sharded", "percpu-lock", "central", "hardened"];

#[test]
fn every_storm_passes() {
    let plugin = plugin().to_str().expect("a path in UTF-8");
    // Taking CPUs away is for those who ask for it.
    let storms: Vec<_> = storms().into_iter().filter(|name| name != "hotplug").collect();
    assert!(storms.len() >= 20, "{storms:?}");
    for (storm, mode) in storms.iter().zip(MODES.iter().cycle()) {
        let ordinary = ["--seconds", "0.1", "--threads", "8", "--seed", "1", "--through", "crate"];
        let output = torture(&[&ordinary[..], &["--storms", storm, "--modes", mode, "--plugin", plugin]].concat());
        assert_eq!(output.status.code(), Some(0), "{storm} {mode}: {}", all(&output));
        let text = stdout(&output);
        let line = text.lines().find(|line| line.starts_with(storm)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(mode) && (line.contains(" ok") || line.contains("not here: ")), "{line}");
        if line.contains("not here: ") {
            // By a system call, so that the test harness does not capture it.
            let line = format!("not tested: storm {storm}: {line}\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error");
        }
    }
}

#[test]
fn a_storm_in_every_mode_and_the_c_library() {
    let output = torture(&["--seconds", "0.1", "--storms", "crowd", "--through", "crate,system", "--rounds", "2"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    for mode in MODES {
        let lines = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(mode)).count();
        assert_eq!(lines, 2, "{mode}: {text}");
    }
    assert!(text.contains("system") && text.contains("0 lost"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("seed ")).count(), 2, "{text}");
}

#[test]
fn planted_faults_are_found() {
    for (plant, word) in [
        ("doubles", "doubled: "),
        ("forgets", "forgotten by realloc: "),
        ("scribbles", "corrupted: "),
        ("misaligns", "misaligned: "),
        ("dirties", "dirty: "),
        ("loses", "lost: "),
        ("refuses", "refused: "),
        ("crashes", "SIGSEGV"),
        ("hangs", "hung: "),
    ] {
        for (storm, through) in [("crowd", "crate"), ("forks", "crate"), ("moves", "system")] {
            if (plant, through) == ("loses", "system") || (plant != "doubles" && storm == "forks") {
                continue; // the C library keeps no books; one fault is enough for a second storm
            }
            let mut arguments = vec!["--storms", storm, "--through", through, "--modes", "percpu", "--seed", "7"];
            // A loss ends it: the time is for a busy host.
            arguments.extend(["--seconds", "2", "--patience", "5", "--plant", plant]);
            let output = torture(&arguments);
            let text = stdout(&output);
            assert_eq!(output.status.code(), Some(1), "{plant} in {storm} through {through}: {}", all(&output));
            assert!(text.contains("LOST: ") && text.contains(word), "{plant} through {through}: {}", all(&output));
            assert!(text.contains("repeat it: perseq torture --storms"), "{text}");
            assert!(text.contains("--seed 7"), "{text}");
        }
    }
}

#[test]
fn the_first_loss_ends_it_unless_it_shall_go_on() {
    // A loss ends its storm: the time is for a busy host.
    let arguments = ["--seconds", "2", "--through", "crate", "--modes", "central,percpu", "--storms", "crowd,moves"];
    let lines = |more: &[&str]| {
        let output = torture(&[&arguments[..], &["--plant", "doubles"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", all(&output));
        stdout(&output).matches("LOST: ").count()
    };
    assert_eq!((lines(&[]), lines(&["--keep-going"])), (1, 4));
}

#[test]
fn what_cannot_be_had_says_why_and_fails_where_it_is_required() {
    // A plugin is not beside this program, and limits of perseq cannot be set through malloc.
    let arguments = ["--seconds", "0.1", "--storms", "limits", "--through", "system"];
    let output = torture(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(stdout(&output).contains("not here: perseq's limits are set through the crate"), "{}", all(&output));
    let output = torture(&[&arguments[..], &["--require"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    for arguments in [
        &["--storms", "rain"][..],
        &["--modes", "best"],
        &["--through", "window"],
        &["--through", "no/such/library.so"],
        &["--plugin", "no/such/library.so"],
        &["--seconds", "0"],
        &["--seconds", "-1"],
        &["--seconds", "soon"],
        &["--threads", "1"],
        &["--rounds", "0"],
        &["--seed", "x"],
        &["--plant", "roses"],
    ] {
        let output = torture(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", all(&output));
        assert!(said.contains(arguments[1]) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
