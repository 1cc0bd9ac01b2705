//! Forks, signals and misuse in the middle of everything, in C programs on libperseq, in every mode and hardened. The
//! programs are in `life/`, and say what they do.

mod kit;
#[path = "kit/timed.rs"]
mod timed;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use timed::{build_c, every_mode, on_libperseq, run};

/// Runs a program in every mode and hardened; it must end with `code` after it printed `text`.
fn in_every_mode(source: &str, arguments: &[&str], code: i32, text: &str) {
    let program = build_c(source, &[]);
    for mode in every_mode() {
        let mut command = on_libperseq(&program, mode, &[]);
        command.args(arguments);
        run(command).ended(code, text);
    }
}

/// glibc's fork takes the list of stdio's streams after our handler: what another thread holds that waits for us.
#[test]
fn fork_beside_stdio() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("lines");
    in_every_mode("life/fork_beside_stdio.c", &[&file.display().to_string(), "2"], 0, "went on to the end");
}

#[test]
fn fork_in_a_handler_of_one_thread() {
    in_every_mode("life/fork_in_handler.c", &[], 0, "80 forks");
}

#[test]
fn fork_in_a_handler_beside_threads() {
    in_every_mode("life/fork_in_handler_with_threads.c", &[], 0, "60 forks");
}

/// Handlers of threads that hold locks which the others lack. (With glibc's malloc, this program hangs.)
#[test]
fn forks_in_handlers_at_once() {
    in_every_mode("life/forks_at_once.c", &[], 0, "32 forks");
}

/// The child goes on in a slow path that waits for a lock of a thread that it does not have. A debug build sees a fork of
/// that child take locks that are nobody's.
#[test]
fn fork_in_a_handler_of_a_thread_that_waits() {
    in_every_mode("life/fork_of_a_waiter.c", &[], 0, "50 of 50 children were whole");
    let program = build_c("life/fork_of_a_waiter.c", &[]);
    let mut command = on_libperseq(&program, "percpu", &[]);
    command.env("LD_PRELOAD", kit::debug_library()).env("PERSEQ_STATS", "text");
    run(command).ended(0, "50 of 50 children were whole");
}

/// What cannot be known there ends the child, and is not waited for.
#[test]
fn fork_in_a_handler_beside_the_first_decision() {
    if !kit::is_glibc("forks beside the decision", "musl's pthread_atfork allocates, so all is decided before main") {
        return;
    }
    let program = build_c("life/orphaned_decision.c", &["-rdynamic"]);
    for mode in every_mode() {
        let outcome = run(on_libperseq(&program, mode, &[])).ended(0, "in the middle, child killed by 6");
        assert!(outcome.stderr.contains("this process can only allocate"), "{outcome}");
    }
}

/// A handler that allocates and forks after a misuse was detected: in whatever state that left the thread.
#[test]
fn crash_reporter() {
    let program = build_c("life/crash_reporter.c", &[]);
    for mode in every_mode() {
        let outcome = run(on_libperseq(&program, mode, &[])).ended(42, "");
        assert!(outcome.stderr.contains("perseq: "), "{outcome}");
    }
}

/// In all modes whose lists are not changed by plain loads and stores of their thread: mostly small blocks, which caches
/// serve, and mostly large ones, which none serves. A debug build sees a handler that waits out of the locks' order.
#[test]
fn handlers_allocate() {
    let program = build_c("life/allocate_in_handler.c", &[]);
    for mode in every_mode().filter(|mode| !mode.starts_with("perthread")) {
        for library in [kit::library(), kit::debug_library()] {
            for large_one_in in ["40", "2"] {
                let mut command = on_libperseq(&program, mode, &[]);
                command.env("LD_PRELOAD", library).args(["1", "150", large_one_in]);
                run(command).ended(0, "every block was whole");
            }
        }
    }
}

/// What handlers may not call ends the process with a word: it does not wait for its own thread.
#[test]
fn statistics_in_a_handler() {
    let program = build_c("life/statistics_in_handler.c", &[]);
    let outcome = run(on_libperseq(&program, "central", &[]));
    assert!(outcome.stderr.contains("perseq: a signal handler called"), "{outcome}");
    assert_eq!(outcome.status.signal(), Some(libc::SIGABRT), "{outcome}");
}

/// The report at exit is left out, with a word, where the process ends in the middle of an allocation.
#[test]
fn exit_in_a_handler() {
    let program = build_c("life/exit_in_handler.c", &[]);
    let (mut reports, mut without) = (0, 0);
    for mode in every_mode() {
        let mut command = on_libperseq(&program, mode, &[]);
        command.env("PERSEQ_STATS", "json");
        let outcome = run(command).ended(0, "each ended as it was told");
        reports += outcome.stderr.lines().filter(|line| line.starts_with('{')).count();
        without += outcome.stderr.matches("PERSEQ_STATS: no report").count();
    }
    assert!(reports > 0 && without > 0, "{reports} reports, {without} processes without");
}

/// A report longer than one write, to a pipe without a reader, to a file that may not grow, and to one that others write to.
#[test]
fn a_report_changes_no_end_and_no_other_report() {
    let program = build_c("life/every_class.c", &[]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = on_libperseq(&program, "percpu", &[]);
    let status = command.env("PERSEQ_STATS", "json").stdin(Stdio::null()).stderr(writer).status();
    assert_eq!(status.expect("it starts").code(), Some(0), "nobody reads");

    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("reports");
    drop(std::fs::remove_file(&file));
    let asked = format!("json:{}", file.display());
    let mut command = std::process::Command::new("sh");
    let script = "ulimit -f 0; LD_PRELOAD=\"$1\" exec \"$2\" < /dev/null";
    command.args(["-c", script, "sh"]).arg(kit::library()).arg(&program).env("PERSEQ_STATS", &asked);
    run(command).ended(0, "");

    std::fs::remove_file(&file).expect("made, though nothing is in it");
    const TOGETHER: usize = 60;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let children: Vec<_> = (0..TOGETHER)
        .map(|_| {
            let mut command = on_libperseq(&program, "percpu", &[]);
            command.env("PERSEQ_STATS", &asked).stdin(reader.try_clone().expect("a descriptor"));
            command.spawn().expect("it starts")
        })
        .collect();
    drop(writer); // now they end
    for mut child in children {
        assert!(child.wait().expect("our child").success());
    }
    let reports = std::fs::read_to_string(&file).expect("reports");
    assert!(reports.len() > TOGETHER * 8192, "a report is longer than one write");
    let whole =
        |line: &&str| line.starts_with("{\"perseq\"") && line.ends_with('}') && line.matches("\"perseq\"").count() == 1;
    assert_eq!(reports.lines().filter(whole).count(), TOGETHER, "of {} lines", reports.lines().count());
}

/// What two modes are left out of `handlers_allocate` for: their fast path is not whole to a handler of its own thread.
#[test]
fn handlers_must_not_allocate_per_thread() {
    let program = build_c("life/allocate_in_handler.c", &[]);
    for mode in ["perthread", "perthread-drain"] {
        let broken = (0..10).any(|_| {
            let mut command = on_libperseq(&program, mode, &[]);
            command.args(["3", "100"]);
            !run(command).status.success()
        });
        assert!(broken, "{mode}: handlers that allocate do no harm: say so in the documentation");
    }
}

/// Without a key, nobody would say that a thread ends whose cache is to be given back.
#[test]
fn threads_come_and_go_without_a_key() {
    if !kit::is_glibc("threads without a key", "musl's pthread_atfork allocates, so all is decided before main") {
        return;
    }
    let program = build_c("life/no_key.c", &[]);
    for (mode, active) in [("perthread", "sharded"), ("perthread-drain", "sharded"), ("percpu-lock", "percpu-lock")] {
        let mut command = on_libperseq(&program, mode, &[]);
        command.arg(active);
        run(command).ended(0, "nothing is left of them");
    }
}

/// No call of the C family is a point where a thread is cancelled.
#[test]
fn cancelled_threads() {
    in_every_mode("life/cancelled.c", &[], 0, "cancelled where it may be");
}

/// Whatever a library that is loaded first wraps may allocate.
#[test]
fn wrappers_that_allocate() {
    let wrappers = build_c("life/wrappers.c", &["-shared", "-fPIC"]);
    let program = build_c("life/under_wrappers.c", &[]);
    for mode in every_mode() {
        run(on_libperseq(&program, mode, &[&wrappers])).ended(0, "nothing waits for itself");
    }
}

/// A filter that was set late kills the process at any call but those of `life/late_filter.c`.
#[test]
fn a_filter_set_late() {
    if !kit::is_glibc(
        "a filter that kills later",
        "threads are registered by their first allocation, which the filter forbids",
    ) {
        return;
    }
    in_every_mode("life/late_filter.c", &[], 0, "no other call was made");
}

/// The thread gives back all that is due, not 64 MiB a period.
#[test]
fn a_process_that_sleeps_gives_back_in_one_period() {
    let program = build_c("life/idle.c", &[]);
    let mut command = on_libperseq(&program, "percpu", &[]);
    // At 64 MiB a period of 2 s it would take 26 s.
    command.args(["sleep", "900", "80", "15"]).env("PERSEQ_BACKGROUND", "1");
    run(command).ended(0, "gave it back");
}

/// A page that stays locked keeps itself, and nothing else.
#[test]
fn a_locked_page_keeps_no_other() {
    in_every_mode("life/locked.c", &["trim", "page"], 0, "the rest went back");
}

/// The thread ends where nothing goes back, so the process does.
#[test]
fn the_thread_ends_where_nothing_goes_back() {
    let program = build_c("life/locked.c", &[]);
    for (what, mode) in ["page", "filter"].into_iter().zip(["percpu", "perthread"]) {
        let mut command = on_libperseq(&program, mode, &[]);
        command.args(["end", what]).env("PERSEQ_BACKGROUND", "1").env("PERSEQ_RELEASE", "50");
        run(command).ended(0, "the process ended");
    }
}

/// What the documentation says of modes whose threads come to a slow path by a miss only.
#[test]
fn small_traffic_keeps_a_burst_without_a_slow_path() {
    let program = build_c("life/idle.c", &[]);
    for mode in ["perthread", "perthread-drain"] {
        let mut command = on_libperseq(&program, mode, &[]);
        // Twice the period.
        command.args(["traffic", "400", "120", "4"]).env("PERSEQ_BACKGROUND", "0");
        run(command).ended(3, "MiB at the burst");
    }
}

/// Small traffic that caches serve keeps no burst: not where it comes to slow paths, and nowhere with the thread, or
/// where memory goes back at once.
#[test]
fn small_traffic_does_not_keep_a_burst() {
    let program = build_c("life/idle.c", &[]);
    let with_thread = ["percpu", "percpu-mmcid", "perthread", "perthread-drain"];
    let modes = with_thread.map(|mode| (mode, "1")).into_iter();
    for (mode, background) in modes.chain(["sharded", "percpu-lock", "central"].map(|mode| (mode, "0"))) {
        let mut command = on_libperseq(&program, mode, &[]);
        command.args(["traffic", "400", "120", "30"]).env("PERSEQ_BACKGROUND", background);
        run(command).ended(0, "gave it back");
    }
    for mode in ["percpu", "perthread"] {
        let mut command = on_libperseq(&program, mode, &[]);
        command.args(["traffic", "400", "120", "30"]).env("PERSEQ_BACKGROUND", "0").env("PERSEQ_RELEASE", "now");
        run(command).ended(0, "gave it back");
    }
}
