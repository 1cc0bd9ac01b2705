//! `perseq limits`: the table has a number where there is one, and a reason where there is none.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(arguments: &[&str]) -> Command {
    // Peers that the user built play no part.
    let nothing = std::env::temp_dir().join("perseq-no-peers");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.arg("limits").args(arguments).env("XDG_CACHE_HOME", nothing);
    command
}

fn limits(arguments: &[&str]) -> Output {
    command(arguments).output().expect("perseq starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The cell of a row in the only column.
fn cell(table: &str, row: &str) -> f64 {
    let line = table.lines().find(|line| line.starts_with(&format!("| `{row}`: "))).expect("a row");
    let cell = line.split('|').nth(3).expect("a column").trim();
    cell.parse().unwrap_or_else(|_| panic!("{row}: {cell}\n{table}"))
}

#[test]
fn the_c_library_leaves_what_it_is_known_to_leave() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("limits.md");
    let out = ["--out", file.to_str().expect("a path in UTF-8")];
    let rows = "idle,late,late-malloc,ulimit,ulimit-threads,aligned,mlockall";
    let output = limits(&[&["--heaps", "system", "--check", "--cases", rows][..], &out].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    assert_eq!(std::fs::read_to_string(file).expect("the table"), table);
    assert!((2.0..200.0).contains(&cell(&table, "idle")), "{table}");
    assert!((1900.0..2048.0).contains(&cell(&table, "late-malloc")), "{table}");
    assert!((600.0..977.0).contains(&cell(&table, "ulimit")), "{table}");
    assert!((50.0..200.0).contains(&cell(&table, "ulimit-threads")), "{table}");
    // Where the limit may not be raised, there is a reason instead of a number.
    if !table.contains("RLIMIT_MEMLOCK may not be raised") {
        assert!((16.0..512.0).contains(&cell(&table, "mlockall")), "{table}");
    }
    assert_eq!((cell(&table, "late"), cell(&table, "aligned")), (4.0, 400.0), "{table}");
}

/// What was measured is on the disk at once: a run that was cut, here in the middle of a line, goes on where it was.
#[test]
fn a_run_that_was_cut_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (kept, out) = (directory.path().join("rows.jsonl"), directory.path().join("limits.md"));
    let run = |rows: &str| {
        let files = ["--rows", kept.to_str().expect("UTF-8"), "--out", out.to_str().expect("UTF-8")];
        limits(&[&["--heaps", "system", "--cases", rows][..], &files].concat())
    };
    assert_eq!(run("aligned").status.code(), Some(0));
    let line = std::fs::read_to_string(&kept).expect("a line");
    let number = "\"number\":400.0";
    assert!(line.lines().count() == 1 && line.contains(number), "{line}");
    // A number that nobody measures, to see where the next run has it from; and the beginning of a line.
    std::fs::write(&kept, line.replace(number, "\"number\":399.0") + &line[..20]).expect("a file");
    let output = run("aligned,many");
    assert!(stderr(&output).contains("aligned, system: 399 of 400 (kept)"), "{}", stderr(&output));
    let table = stdout(&output);
    assert_eq!((cell(&table, "aligned"), table.contains("Not finished")), (399.0, false), "{table}");
    assert_eq!(std::fs::read_to_string(&out).expect("the table"), table);
    assert_eq!(std::fs::read_to_string(&kept).expect("lines").lines().count(), 2);
    // Of another library it is no number.
    std::fs::write(&kept, line.replace("glibc", "another")).expect("a file");
    assert!(!stderr(&run("aligned")).contains("(kept)"));
    // A file of something else is refused, and stays.
    std::fs::write(&kept, "my notes\n").expect("a file");
    let refused = run("aligned");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("line 1"), "{}", stderr(&refused));
    assert_eq!(std::fs::read_to_string(&kept).expect("notes"), "my notes\n");
}

/// Killed in a later row, the file has the rows before it and says which it lacks.
#[test]
fn a_table_that_was_cut_says_what_it_lacks() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("limits.md");
    let mut run = command(&["--heaps", "system", "--cases", "aligned,shrunk", "--out", out.to_str().expect("UTF-8")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("perseq starts");
    let begin = Instant::now();
    // The second row takes 5 seconds at least.
    while !out.exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no table after a row");
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().expect("a child");
    run.wait().expect("a child");
    let table = std::fs::read_to_string(&out).expect("the table");
    assert_eq!(cell(&table, "aligned"), 400.0, "{table}");
    assert!(table.contains("Not finished. Not measured: `shrunk`."), "{table}");
}

#[test]
fn a_core_is_small_or_there_is_no_debugger() {
    let table = stdout(&limits(&["--heaps", "system", "--cases", "core"]));
    if table.contains("gdb is not installed") {
        assert!(std::env::var_os("CI").is_none(), ".ci/run installs gdb");
        return;
    }
    assert!((0.1..200.0).contains(&cell(&table, "core")), "{table}");
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    for arguments in [
        &["--cases", "weather"][..],
        &["--heaps", "best"],
        &["--libperseq", "no/such/file", "--heaps", "percpu"],
        &["--peers", "no/such/folder", "--heaps", "mimalloc2"],
    ] {
        let output = limits(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(arguments[1]), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    let list = stdout(&limits(&["--list"]));
    assert!(list.lines().count() >= 15 && list.contains("mlockall"), "{list}");
}
