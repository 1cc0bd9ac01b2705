//! The commands about other allocators: `peers`, `suite` and `programs`. Libraries to be refused, or to be found slow,
//! are built here by rustc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs perseq with a cache of its own, so that peers built by the user play no part.
fn perseq(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(arguments).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command.output().expect("perseq starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("perseq exits")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Builds a library of these functions.
fn library(folder: &Path, name: &str, functions: &str) -> PathBuf {
    let source = folder.join(format!("{name}.rs"));
    let head = "#![no_std]\n#[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
                unsafe extern \"C\" { fn __libc_malloc(n: usize) -> *mut u8; fn __libc_free(p: *mut u8); \
                fn __libc_calloc(n: usize, m: usize) -> *mut u8; fn __libc_realloc(p: *mut u8, n: usize) -> *mut u8; }\n";
    fs::write(&source, format!("{head}{functions}")).expect("a source file");
    let path = folder.join(format!("lib{name}.so"));
    let mut command = Command::new("rustc");
    command.args(["--edition=2024", "--crate-type=cdylib", "-O", "-Cpanic=abort", "-Alinker_messages", "-o"]);
    let output = command.arg(&path).arg(&source).output().expect("rustc starts");
    assert!(output.status.success(), "{}", stderr(&output));
    path
}

/// The C library's malloc behind one that runs `before` and may give up.
fn wrapped(before: &str) -> String {
    format!(
        "#[unsafe(no_mangle)] extern \"C\" fn malloc(n: usize) -> *mut u8 {{ {before} unsafe {{ __libc_malloc(n) }} }}
         #[unsafe(no_mangle)] extern \"C\" fn calloc(n: usize, m: usize) -> *mut u8 {{ unsafe {{ __libc_calloc(n, m) }} }}
         #[unsafe(no_mangle)] extern \"C\" fn realloc(p: *mut u8, n: usize) -> *mut u8 {{ unsafe {{ __libc_realloc(p, n) }} }}
         #[unsafe(no_mangle)] extern \"C\" fn free(p: *mut u8) {{ unsafe {{ __libc_free(p) }} }}"
    )
}

fn refused(folder: &Path, allocator: &str, expected: &str) {
    let output = perseq(folder, &["suite", "--allocator", allocator, "--only", "system,rival", "--out", "refused"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{allocator}: {said}");
    assert!(said.contains(expected), "{allocator}: {said}");
    assert_eq!(said.lines().count(), 1, "{allocator}: {said}");
    assert!(!folder.join("refused").exists(), "{allocator}: nothing was measured");
}

#[test]
fn a_library_that_is_not_the_active_allocator_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("text.so"), "not a library").expect("a file");
    fs::create_dir(folder.join("a b")).expect("a folder");
    fs::copy(folder.join("text.so"), folder.join("a b/x.so")).expect("a file");
    fs::copy(folder.join("text.so"), folder.join("no:x.so")).expect("a file");
    library(folder, "none", "#[unsafe(no_mangle)] extern \"C\" fn unrelated() {}");
    library(
        folder,
        "half",
        "#[unsafe(no_mangle)] extern \"C\" fn malloc(n: usize) -> *mut u8 { unsafe { __libc_malloc(n) } }",
    );
    refused(folder, "rival=missing.so", "missing.so: cannot open");
    refused(folder, "rival=text.so", "malloc comes from");
    refused(folder, "rival=libnone.so", "malloc comes from");
    refused(folder, "rival=libhalf.so", "free comes from");
    refused(folder, "rival=a b/x.so", "malloc comes from");
    refused(folder, "rival=no:x.so", "malloc comes from");
    refused(folder, "rival", "expected NAME=PATH.so");
    refused(folder, "=libnone.so", "expected NAME=PATH.so");

    // A library that is no libperseq cannot pass for one of its modes.
    library(folder, "plain", &wrapped(""));
    let output =
        perseq(folder, &["suite", "--libperseq", "libplain.so", "--only", "system,percpu", "--out", "refused"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("expected libperseq.so"), "{}", stderr(&output));
}

#[test]
fn a_slow_allocator_is_seen_as_slower_and_the_report_is_reproducible() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    library(folder, "slow", &wrapped("for _ in 0..40 { core::hint::spin_loop() }"));
    // The dynamic linker would cut such a path.
    fs::create_dir(folder.join("a: b")).expect("a folder");
    library(&folder.join("a: b"), "same", &wrapped(""));
    let arguments = ["suite", "--allocator", "slow=libslow.so", "--allocator", "same=a: b/libsame.so"];
    let amount =
        ["--filter", "^(glibc-simple|sh6bench)$", "--blocks", "3", "--percent", "1", "--threads", "2", "--seed", "5"];
    let output = perseq(folder, &[&arguments[..], &amount, &["--only", "system,slow,same", "--out", "run"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));

    let summary = fs::read_to_string(folder.join("run/report/summary.csv")).expect("a summary");
    let ratios = |allocator: &str| -> Vec<f64> {
        let lines = summary.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let own = lines.filter(|fields| fields[1] == "wall" && fields[4] == allocator && fields[5] == "false");
        own.map(|fields| fields[8].parse().expect("a ratio")).collect()
    };
    // Planted far beyond any noise. How fast the others are is not for a test to judge.
    assert_eq!((ratios("slow").len(), ratios("same").len()), (2, 2), "{summary}");
    assert!(ratios("slow").iter().all(|ratio| *ratio > 2.0), "{summary}");

    // Every sample proves its work, and all samples of a block did the same.
    let rows = fs::read_to_string(folder.join("run/samples.jsonl")).expect("rows");
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let counted: Vec<_> = rows.iter().filter(|row| row["status"] == "ok").collect();
    assert_eq!(counted.len(), 2 * 3 * 4);
    for row in &counted {
        assert_eq!((&row["verified"], &row["checksum"]), (&serde_json::Value::Bool(true), &row["checksum_expected"]));
        let mate = |other: &&&serde_json::Value| other["cell_id"] == row["cell_id"] && other["block"] == row["block"];
        assert!(counted.iter().filter(mate).all(|mate| mate["checksum"] == row["checksum"]));
    }

    // No path of this host; the same rows, the same bytes; never overwritten.
    let manifest = fs::read_to_string(folder.join("run/manifest.json")).expect("a manifest");
    assert!(!manifest.contains(folder.to_str().expect("UTF-8")));
    let names = ["report/report.html", "report/report.md", "report/summary.csv", "SHA256SUMS"];
    let read = || names.map(|name| fs::read(folder.join("run").join(name)).expect("a report"));
    let before = read();
    fs::remove_dir_all(folder.join("run/report")).expect("a report to remove");
    assert_eq!(code(&perseq(folder, &["suite", "--report", "run"])), 0);
    assert_eq!(read(), before);
    let again = perseq(folder, &[&arguments[..], &amount, &["--only", "system,slow", "--out", "run"]].concat());
    assert_eq!(code(&again), 2);
    assert!(stderr(&again).contains("never overwritten"));
}

#[test]
fn an_allocator_that_breaks_its_objects_fails_its_samples() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // Every 5000th small block is the one before it: two owners.
    let broken = "static mut N: usize = 0; static mut LAST: *mut u8 = core::ptr::null_mut();
        if n == 64 { unsafe { N += 1; if N % 5000 == 0 { return LAST; } LAST = __libc_malloc(n); return LAST; } }";
    library(folder, "broken", &wrapped(broken));
    let amount = ["--filter", "^glibc-simple$", "--blocks", "2", "--percent", "3", "--seed", "5", "--out", "run"];
    let arguments = ["suite", "--allocator", "broken=libbroken.so", "--only", "system,broken"];
    let output = perseq(folder, &[&arguments[..], &amount].concat());
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let report = fs::read_to_string(folder.join("run/report/report.md")).expect("a report");
    assert!(report.contains("Failed samples") && report.contains("broken"), "{report}");
}

#[test]
fn wrong_names_are_refused_with_those_that_exist() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, expected) in [
        (&["peers", "--only", "dlmalloc"][..], "expected one of system, mimalloc2"),
        (&["suite", "--only", "system,fastest"], "no allocator `fastest`"),
        (&["suite", "--only", "system", "--baseline", "rival"], "--baseline rival: expected one of system"),
        (&["suite", "--only", "system", "--filter", "nothing"], "expected one of threadtest"),
        (&["suite", "--report", "nowhere"], "no such directory"),
        (&["programs", "--only", "emacs"], "expected one of bash"),
        (&["programs", "--modes", "fastest"], "no such mode"),
    ] {
        let output = perseq(folder.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let output = perseq(folder.path(), &["suite-worker"]);
    assert_eq!(code(&output), 2);
}

#[test]
fn peers_that_are_not_there_are_listed_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("peers")).expect("a folder");
    let output = perseq(folder, &["peers", "--list", "--dir", "peers"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("gperftools") && stdout(&output).contains("missing        not built"));
    let output = perseq(folder, &["peers", "--list", "--dir", "peers", "--only", "jemalloc"]);
    assert_eq!(code(&output), 3, "asked for by name");

    // The C library needs no building; its entry says what runs here.
    let output = perseq(folder, &["peers", "--only", "system", "--dir", "peers", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("glibc"));

    // A library that is not the one that was built is not measured under its name.
    library(folder, "plain", &wrapped(""));
    fs::copy(folder.join("libplain.so"), folder.join("peers/lib.so")).expect("a library");
    let entry = r#"[{"name":"mimalloc2","version":"1","obtained":"x","file":"lib.so","sha256":"00","environment":[],"mode":null,"note":""}]"#;
    fs::write(folder.join("peers/peers.json"), entry).expect("an entry");
    let output = perseq(folder, &["suite", "--peers", "peers", "--only", "system", "--list"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("not the one that was built"), "{}", stderr(&output));
}

#[test]
fn a_program_that_fails_on_an_allocator_is_reported_and_what_it_said_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    library(folder, "mean", &wrapped("if n > 3000 { return core::ptr::null_mut(); }"));
    library(folder, "plain", &wrapped(""));
    let arguments = ["programs", "--only", "bash", "--modes", "none", "--out", "run"];
    let allocators = ["--allocator", "mean=libmean.so", "--allocator", "plain=libplain.so"];
    let output = perseq(folder, &[&arguments[..], &allocators].concat());
    // A shell without memory may also be unable to start; either is a failure of the program, not of the command.
    assert_eq!(code(&output), 1, "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    let table = || said.lines().filter(|line| !line.starts_with('#'));
    let line = |name: &str| table().find(|line| line.contains(name)).expect("a line");
    assert!(line(" mean ").contains("FAILED"));
    assert!(line(" plain ").ends_with("ok") && line(" system ").ends_with("ok"));
    assert!(folder.join("run/bash-mean-0/stderr").is_file() && !folder.join("run/bash-plain-0").exists());
    assert_eq!(std::fs::read_to_string(folder.join("run/table.txt")).expect("the table"), said);
    assert_eq!(std::fs::read_to_string(folder.join("run/samples.jsonl")).expect("rows").lines().count(), 3);
}
