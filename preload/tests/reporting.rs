//! `PERSEQ_STATS` with `every` and `signal`: reports while a process runs, from C programs on the debug library.

mod kit;
#[path = "kit/timed.rs"]
mod timed;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of `reporting.c` that does `what`, with these statistics appended to a new file, in this mode.
fn reporting(what: &str, asked: &str, mode: &str) -> (Command, PathBuf) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reports-{what}-{mode}-{}", std::process::id()));
    drop(std::fs::remove_file(&file));
    let mut command = Command::new(timed::build_c("reporting.c", &[]));
    command.arg(what).arg(&file).env("LD_PRELOAD", kit::debug_library()).env("PERSEQ_MODE", mode);
    command.env("PERSEQ_STATS", format!("json:{}{asked}", file.display()));
    (command, file)
}

/// So many reports, each whole on its line.
fn reports(file: &Path, expected: std::ops::RangeInclusive<usize>) {
    let text = std::fs::read_to_string(file).expect("reports");
    assert!(text.lines().all(|line| line.starts_with("{\"perseq\":") && line.ends_with("]}")), "{text}");
    assert!(expected.contains(&text.lines().count()), "{expected:?} reports: {text}");
    drop(std::fs::remove_file(file));
}

#[test]
fn a_signal_asks_for_a_report_in_a_child_of_fork_as_well() {
    for mode in kit::MODES {
        let (command, file) = reporting("signal", ",signal=USR2", mode);
        timed::run(command).ended(0, "");
        // Three in the parent, one in the child, and one at the end of each.
        reports(&file, 6..=6);
    }
}

#[test]
fn reports_come_in_time() {
    let (command, file) = reporting("every", ",every=1,signal=USR1", "percpu");
    let begin = std::time::Instant::now();
    timed::run(command).ended(0, "");
    assert!(begin.elapsed().as_millis() >= 1900, "two come after two seconds");
    reports(&file, 3..=30);
}

/// The thread that reports keeps no process alive.
#[test]
fn a_process_ends_with_its_last_thread() {
    let (command, file) = reporting("alone", ",every=600", "percpu");
    timed::run(command).ended(0, "");
    reports(&file, 1..=1);
}

#[test]
fn a_signal_that_the_program_uses_is_the_programs() {
    if !kit::is_glibc("signals of programs", "the programs here run on glibc") {
        return;
    }
    let (command, file) = reporting("own", ",signal=USR2", "percpu");
    timed::run(command).ended(0, "");
    reports(&file, 1..=1);
    // One that it was started with something else for is said, and left alone.
    let (command, file) = reporting("own", ",signal=USR2", "sharded");
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' USR2; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| _ = shell.env(name, value.expect("a value")));
    let outcome = timed::run(shell);
    assert!(outcome.stderr.contains("PERSEQ_STATS: the program has a use for the signal"), "{outcome}");
    outcome.ended(0, "");
    reports(&file, 1..=1);
}

#[test]
fn a_file_that_cannot_be_had_is_said_at_the_start() {
    if !kit::is_glibc("files that cannot be had", "the programs here run on glibc") {
        return;
    }
    for path in ["/nonexistent/file", "/", "/proc/version/file"] {
        let mut command = Command::new("bash");
        command.args(["-c", "echo begun >&2"]).env("LD_PRELOAD", kit::debug_library());
        command.env("PERSEQ_STATS", format!("text:{path}"));
        let outcome = timed::run(command);
        let said = format!("perseq: PERSEQ_STATS: {path} cannot be opened for writing\nbegun\n");
        assert_eq!(outcome.stderr, said, "{path}: {outcome}");
        outcome.ended(0, "");
    }
    for bad in ["json,every=0", "json,signal=KILL", "text:file,every=1,every=2"] {
        let mut command = Command::new("bash");
        command.args(["-c", "true"]).env("LD_PRELOAD", kit::debug_library()).env("PERSEQ_STATS", bad);
        let outcome = timed::run(command);
        assert!(!outcome.status.success() && outcome.stderr.contains("expected text, json,"), "{bad}: {outcome}");
    }
}

/// Who reads from a pipe waits for the report, and does not take a look at the start for its end.
#[test]
fn a_pipe_is_not_opened_before_there_is_a_report() {
    if !kit::is_glibc("reports to pipes", "the programs here run on glibc") {
        return;
    }
    let pipe = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reports-pipe-{}", std::process::id()));
    drop(std::fs::remove_file(&pipe));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo starts").success());
    let path = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).expect("a pipe"));
    std::thread::sleep(std::time::Duration::from_millis(100)); // it waits for a writer, most likely
    let mut command = Command::new("sleep");
    command.arg("0.3").env("LD_PRELOAD", kit::debug_library());
    command.env("PERSEQ_STATS", format!("json:{}", pipe.display()));
    timed::run(command).ended(0, "");
    assert!(reader.join().expect("no panic").starts_with("{\"perseq\":"));
    drop(std::fs::remove_file(&pipe));
}
