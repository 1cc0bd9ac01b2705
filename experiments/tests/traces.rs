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

fn record(directory: &Path, recorder: &Path, arguments: &[&str], program: &[&str]) -> Output {
    let trace = directory.join("trace");
    let fixed = ["trace", "record", "--out", text(&trace), "--events", "200000", "--recorder", text(recorder)];
    perseq(&[&fixed, arguments, &["--"], program].concat())
}

/// A shell, and in it one program after the other: each process is named, and the trace is of them all.
#[test]
fn a_real_program_is_recorded_with_all_that_it_starts_and_replayed() {
    let recorder = library::built("recorder");
    let directory = tempfile::tempdir().expect("a directory");
    // The dynamic linker would cut such a path.
    let blank = directory.path().join("a b.so");
    fs::copy(&recorder, &blank).expect("a copy");
    // Threads of a real program: sorts side by side, and a file large enough for each to have work.
    let input = directory.path().join("input");
    let lines: String =
        (0..20_000u64).map(|line| format!("{}\n", line.wrapping_mul(0x9e37_79b9) % 1_000_003)).collect();
    fs::write(&input, lines).expect("input");
    let kept = directory.path().join("kept");
    let script = format!("sort --parallel=4 -S 1M -o /dev/null '{}'; exec wc -l '{}'", text(&input), text(&input));
    let output = record(directory.path(), &blank, &["--keep", text(&kept)], &["sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    let named = |name: &str| said.lines().filter(|line| line.split_whitespace().nth(1) == Some(name)).count();
    assert_eq!(["sh", "sort", "wc"].map(named), [1; 3], "{said}");

    let recordings: Vec<_> = fs::read_dir(&kept).expect("recordings").flatten().map(|entry| entry.path()).collect();
    assert_eq!(recordings.len(), 3, "{recordings:?}");
    for recording in &recordings {
        // No longer than what is in it: eight bytes of its head say how many notes of 24 bytes that is.
        let bytes = fs::read(recording).expect("a recording");
        let notes = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        assert_eq!(bytes.len() as u64, 64 + 24 * notes, "{recording:?}");
        let one = directory.path().join("one");
        let output = perseq(&["trace", "import", text(recording), text(&one)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 5, "nothing else is left");
    let trace = directory.path().join("trace");
    let output = perseq(&["trace", "replay", text(&trace), "--blocks", "2", "--measure-ms", "10"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("Every object was verified"));
}

#[test]
fn a_recording_that_cannot_be_made_is_no_success() {
    let recorder = library::built("recorder");
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path();
    // The dynamic linker is a program that is linked statically.
    let linker =
        if cfg!(target_arch = "x86_64") { "/lib64/ld-linux-x86-64.so.2" } else { "/lib/ld-linux-aarch64.so.1" };
    for (arguments, program, code, expected) in [
        (&[][..], &[linker, "--version"][..], 2, "no recording came of it"),
        (&[], &["no-such-program"], 2, "no-such-program: cannot start"),
        (&["--keep", text(folder)], &["true"], 3, "cannot create"),
    ] {
        let output = record(folder, &recorder, arguments, program);
        assert_eq!(output.status.code(), Some(code), "{program:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{program:?}: {}", stderr(&output));
    }
    let output = record(&folder.join("missing"), &recorder, &[], &["true"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("missing/trace: cannot write"), "{}", stderr(&output));

    let fails = record(folder, &recorder, &[], &["sh", "-c", "exit 3"]);
    assert_eq!(fails.status.code(), Some(4), "{}", stderr(&fails));
    assert!(stderr(&fails).contains("warning: sh: exit status: 3"), "{}", stderr(&fails));
}

/// As `preload/install.sh --command` lays them out.
#[test]
fn an_installed_command_finds_what_was_installed_with_it() {
    let prefix = tempfile::tempdir().expect("a directory");
    let below = |path: &str| prefix.path().join(path);
    for folder in ["bin", "lib/perseq"] {
        fs::create_dir_all(below(folder)).expect("a folder");
    }
    fs::copy(env!("CARGO_BIN_EXE_perseq"), below("bin/perseq")).expect("a copy");
    let record = || {
        let mut command = Command::new(below("bin/perseq"));
        command.args(["trace", "record", "--out", text(&below("trace")), "--", "true"]).output().expect("perseq starts")
    };
    let missing = record();
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("no libperseq_recorder.so beside this program or in ../lib/perseq"));
    fs::copy(library::built("recorder"), below("lib/perseq/libperseq_recorder.so")).expect("a copy");
    let found = record();
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
}
