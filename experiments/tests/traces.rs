//! Traces from end to end: a recorded program, a made-up one, and files that are neither.

#[path = "kit/library.rs"]
mod library;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs perseq where the directories of its runs are in nobody's way.
fn perseq(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(arguments).current_dir(folder.path()).output().expect("perseq starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_made_up_trace_is_the_same_each_time_and_replays() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    for kind in ["server", "build", "pipeline"] {
        for path in [&first, &second] {
            let output = perseq(&["trace", "synthesize", kind, text(path), "--threads", "3", "--events", "800"]);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        }
        assert_eq!(fs::read(&first).expect("a trace"), fs::read(&second).expect("a trace"));
        assert!(stdout(&perseq(&["trace", "stat", text(&first)])).contains("synthetic: 3 threads"));
        for fold in ["1", "2", "9"] {
            let output =
                perseq(&["trace", "replay", text(&first), "--blocks", "2", "--measure-ms", "10", "--fold", fold]);
            assert_eq!(output.status.code(), Some(0), "{kind} on {fold}: {}", stderr(&output));
            for mode in ["percpu", "perthread", "central", "control"] {
                assert!(stdout(&output).lines().any(|line| line.starts_with(mode)), "{}", stdout(&output));
            }
        }
    }
}

#[test]
fn a_file_that_is_no_trace_is_refused_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("trace");
    perseq(&["trace", "synthesize", "build", text(&path), "--threads", "2", "--events", "400"]);
    let good = fs::read(&path).expect("a trace");
    let damaged = [&good[..good.len() - 1], b"PSQTRC01", b"", b"something else entirely"];
    for bytes in damaged {
        fs::write(&path, bytes).expect("a file to break");
        for command in [&["trace", "stat"][..], &["trace", "replay"]] {
            let output = perseq(&[command, &[text(&path)]].concat());
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains(text(&path)), "{}", stderr(&output));
            assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        }
        assert_eq!(perseq(&["trace", "import", text(&path), text(&path)]).status.code(), Some(2));
    }
}

#[test]
fn a_real_program_is_recorded_imported_and_replayed() {
    let recorder = library::built("recorder");
    let directory = tempfile::tempdir().expect("a directory");
    let raw = directory.path().join("raw");
    // Threads of a real program: eight sorts side by side, and a file large enough for each to have work.
    let input = directory.path().join("input");
    let lines: String =
        (0..20_000u64).map(|line| format!("{}\n", line.wrapping_mul(0x9e37_79b9) % 1_000_003)).collect();
    fs::write(&input, lines).expect("input");
    let output = perseq(&[
        "trace",
        "record",
        "--out",
        text(&raw),
        "--events",
        "200000",
        "--recorder",
        text(&recorder),
        "--",
        "sort",
        "--parallel=4",
        "-S",
        "1M",
        "-o",
        "/dev/null",
        text(&input),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let recordings: Vec<_> = fs::read_dir(directory.path())
        .expect("recordings")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| text(path).contains("raw."))
        .collect();
    assert!(!recordings.is_empty());
    let trace = directory.path().join("trace");
    for recording in &recordings {
        let output = perseq(&["trace", "import", text(recording), text(&trace)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let output = perseq(&["trace", "replay", text(&trace), "--blocks", "2", "--measure-ms", "10"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains("Every object was verified"));
    }
}
