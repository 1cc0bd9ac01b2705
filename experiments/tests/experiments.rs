//! Runs every experiment as a user does, very briefly: what they measure is not judged here, that they measure it is.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[path = "../../tests/kit/seccomp.rs"]
#[allow(dead_code, reason = "other tests refuse other calls")]
mod seccomp;

fn rows(directory: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("samples.jsonl")).expect("rows");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// As in a container whose filter of system calls does not let a process ask for addresses that are not drawn: samples
/// count, and rows and report say what they lack. Where it is allowed, nobody says so.
#[test]
fn who_may_not_deal_addresses_says_so_and_runs() {
    const FORBIDDEN: [seccomp::Refusal; 1] = [seccomp::Refusal { call: libc::SYS_personality, errno: libc::EPERM }];
    let directory = tempfile::tempdir().expect("a directory");
    let run = |name: &str, forbidden: bool| {
        let out = directory.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
        command.args(["run", "--filter", "E0[12]/", "--blocks", "2", "--measure-ms", "20", "--out"]).arg(&out);
        if forbidden {
            // SAFETY: async-signal-safe, as it says.
            unsafe { command.pre_exec(|| seccomp::install(&FORBIDDEN)) };
        }
        let output = command.output().expect("perseq starts");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report = fs::read_to_string(out.join("report/report.md")).expect("a report");
        let rows: Vec<_> = rows(&out).into_iter().filter(|row| row["status"] == "ok").collect();
        assert!(!rows.is_empty());
        let said = |row: &Value| row["warnings"].to_string().contains("personality(2) was refused");
        (
            rows.iter().filter(|row| said(row)).count(),
            rows.len(),
            report.contains("Not at the addresses of their blocks"),
        )
    };
    let (said, all, noted) = run("forbidden", true);
    assert_eq!((said, noted), (all, true));
    let allowed = Command::new("setarch").args(["-R", "true"]).status().is_ok_and(|status| status.success());
    let (said, all, noted) = run("allowed", false);
    assert_eq!((said, noted), if allowed { (0, false) } else { (all, true) });
}

#[test]
fn every_experiment_verifies_its_work_and_reports_every_metric_it_defines() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_perseq"))
        .args(["run", "--blocks", "2", "--measure-ms", "25", "--seed", "11", "--out"])
        .arg(&out)
        .output()
        .expect("perseq starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(out.join("manifest.json")).expect("a manifest")).expect("JSON");
    let definitions: BTreeMap<&str, &Value> = manifest["definitions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|definition| (definition["id"].as_str().expect("an id"), definition))
        .collect();
    assert!(definitions.len() >= 15, "{:?}", definitions.keys());
    for row in rows(&out).iter().filter(|row| row["status"] == "ok") {
        let name = &row["sample_id"];
        assert_eq!(row["verified"], true, "{name}");
        assert_eq!(row["checksum"], row["checksum_expected"], "{name}");
        assert!(row["ops_alloc"].as_u64() > Some(0) && row["ops_alloc"] == row["ops_free"], "{name}");
        let definition = definitions[row["experiment"].as_str().expect("an id")];
        for metric in definition["metrics"].as_array().expect("metrics") {
            let metric = metric["name"].as_str().expect("a name");
            let (value, reason) = (&row["metrics"][metric], &row["unavailable"][metric]);
            assert!(value.is_f64() || reason.is_string(), "{name} has neither `{metric}` nor a reason");
        }
        // What the caches hold one by one is what the metric says they hold together.
        if let Some(cached) = row["metrics"]["cached_bytes"].as_f64() {
            let caches = row["caches"].as_array().expect("caches");
            let sum: u64 = caches.iter().map(|cache| cache["cached_bytes"].as_u64().expect("bytes")).sum();
            assert_eq!(sum as f64, cached, "{name}");
        }
        if row["experiment"] == "E04" && row["mode_requested"] != "system" {
            assert_eq!(row["metrics"]["cached_bytes"], row["metrics"]["cached_bytes_by_total"], "{name}");
        }
    }

    // Every file of the report, and every prediction in it whatever came of it.
    let report = fs::read_to_string(out.join("report/report.md")).expect("a report");
    for (id, definition) in &definitions {
        assert!(report.contains(&format!("## {id} ")), "{id}");
        assert!(out.join(format!("report/latex/{}.tex", id.to_lowercase())).is_file(), "{id}");
        for prediction in definition["predictions"].as_array().expect("predictions") {
            assert!(report.contains(prediction["text"].as_str().expect("text").trim()), "{id}");
        }
    }
    for figure in ["forest", "run-order", "e08-request-tail", "e11-tiers", "e12-iso-performance", "e04-occupancy"] {
        assert!(out.join(format!("report/figures/{figure}.svg")).is_file(), "{figure}");
    }
    // Each with its numbers, and with a title or a unit inside.
    for entry in fs::read_dir(out.join("report/figures")).expect("figures").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "svg") {
            let data = fs::read_to_string(path.with_extension("csv")).expect("the figure's numbers");
            let columns = data.lines().next().map_or(0, |header| header.split(',').count());
            assert!(columns > 1 && data.lines().count() > 1, "{path:?}: {data}");
        }
    }
}

/// The kernel's counters are everywhere, so the pass can be tried where the processor has none.
#[test]
fn the_counter_pass_counts_on_every_thread_and_leaves_timing_samples_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_perseq"))
        .args(["run", "--counters", "--filter", "E01/depth=1$|E02/threads=1$", "--modes", "percpu,perthread"])
        .args(["--blocks", "2", "--measure-ms", "30", "--seed", "3", "--out"])
        .arg(&out)
        .output()
        .expect("perseq starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = rows(&out);
    let (counted, timed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["pass"] == "counter");
    assert!(!counted.is_empty() && timed.iter().all(|row| row["pass"] == "time" && row["counted"].is_null()));
    for row in counted.iter().filter(|row| row["counter_group"] == "software") {
        let clock = &row["counted"]["task-clock"];
        if clock["status"] == "no_permission" {
            eprintln!("this host forbids even the kernel's counters: {clock}");
            assert!(clock["raw"].is_null() && clock["errno"].is_i64());
            continue;
        }
        assert_eq!(clock["status"], "ok", "{row}");
        // How much CPU time a busy host gave it is the host's affair, but some it was.
        let nanoseconds = clock["raw"].as_u64().expect("a count");
        assert!(nanoseconds > 0, "{nanoseconds}");
        assert_eq!(clock["enabled_ns"], clock["running_ns"]);
    }
    let report = fs::read_to_string(out.join("report/report.md")).expect("a report");
    assert!(report.contains("## Counters") && report.contains("`task-clock`"));
}

/// As an ordinary user, of whom the kernel refuses some members of the group: those are null with its reason, the others
/// are read, and no worker dies of it.
#[test]
fn an_ordinary_user_counts_what_the_kernel_allows() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
    // Where the sources lie may be nobody's to read.
    let binary = directory.path().join("perseq");
    let built = env!("CARGO_BIN_EXE_perseq");
    fs::hard_link(built, &binary).or_else(|_| fs::copy(built, &binary).map(drop)).expect("the binary");
    let mut command = Command::new(&binary);
    command
        .args(["run", "--counters", "--filter", "E01/depth=1$", "--modes", "perthread"])
        .args(["--blocks", "2", "--measure-ms", "30", "--seed", "3", "--out", "run"])
        .current_dir(directory.path());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("perseq starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = rows(&directory.path().join("run"));
    let counted: Vec<_> = rows.iter().filter(|row| row["counter_group"] == "software").collect();
    assert!(!counted.is_empty());
    for row in counted {
        assert_eq!(row["status"], "ok", "{row}");
        for name in ["task-clock", "page-faults", "context-switches", "cpu-migrations"] {
            let value = &row["counted"][name];
            assert!(value["raw"].is_u64() != value["errno"].is_i64(), "{name} has a value or a reason: {value}");
        }
        // Time on a CPU is no secret of the kernel's, unless it forbids every counter.
        let clock = &row["counted"]["task-clock"];
        let forbidden = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
            .is_ok_and(|level| level.trim().parse::<i32>().is_ok_and(|level| level > 2));
        assert!(clock["raw"].is_u64() || forbidden || clock["errno"] != nix::libc::EACCES, "{clock}");
    }
}

/// A run is read whatever version of perseq made it, and gives the same report each time. Where the report beside it is of
/// this version, it is that one, byte for byte.
#[test]
fn runs_that_the_project_quotes_give_the_report_beside_them() {
    let results = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    for entry in fs::read_dir(results).expect("results").flatten().filter(|entry| entry.path().is_dir()) {
        let directory = tempfile::tempdir().expect("a directory");
        for file in fs::read_dir(entry.path()).expect("a run").flatten().filter(|file| file.path().is_file()) {
            fs::copy(file.path(), directory.path().join(file.file_name())).expect("a file of the run");
        }
        let manifest = fs::read_to_string(entry.path().join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        // A run of the suite of old has no plan of its own, and no kind.
        let planned = ["plan.jsonl", "plan.jsonl.gz"].iter().any(|plan| entry.path().join(plan).is_file());
        let suite = manifest["kind"] == "suite" || !planned;
        let command: &[&str] = if suite { &["suite", "--report"] } else { &["report"] };
        let make = || {
            let output = Command::new(env!("CARGO_BIN_EXE_perseq"))
                .args(command)
                .arg(directory.path())
                .output()
                .expect("perseq starts");
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            files(directory.path())
        };
        let (made, again) = (make(), make());
        assert!(!made.is_empty() && made == again, "the same rows give the same bytes");
        let beside = files(&entry.path());
        assert!(!beside.is_empty(), "{:?}", entry.path());
        assert!(beside.keys().eq(made.keys()), "{:?}: {:?} and {:?}", entry.path(), beside.keys(), made.keys());
        for (name, bytes) in beside {
            assert!(made[&name] == bytes, "{:?}: {name} is not what `perseq report` makes of the rows", entry.path());
        }
    }
}

/// The files of a report.
fn files(root: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["report", "report/figures", "report/latex"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for file in entries.flatten().filter(|file| file.path().is_file()) {
            let name = format!("{folder}/{}", file.file_name().to_string_lossy());
            files.insert(name, fs::read(file.path()).expect("a file of the report"));
        }
    }
    files
}

#[test]
fn power_is_counted_over_whole_runs_with_what_was_planted_and_with_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("power");
    let power = || {
        let arguments = ["power", "--runs", "2", "--blocks", "2", "--seed", "5", "--out"];
        Command::new(env!("CARGO_BIN_EXE_perseq")).args(arguments).arg(&out).output().expect("perseq starts")
    };
    let output = power();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = fs::read_to_string(out.join("power.txt")).expect("a table");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&table));
    assert!(table.contains("2 runs of 2 blocks") && table.contains("Found, of all runs: "), "{table}");
    for (run, seed) in [("001", 5), ("002", 6)] {
        let run = out.join(run);
        assert!(run.join("report/report.html").is_file());
        let manifest = fs::read_to_string(run.join("manifest.json")).expect("a manifest");
        assert_eq!(serde_json::from_str::<Value>(&manifest).expect("JSON")["seed"], seed);
        let mut arms: BTreeMap<String, usize> = BTreeMap::new();
        for row in rows(&run).iter().filter(|row| row["status"] == "ok") {
            *arms.entry(row["planted_percent"].to_string()).or_default() += 1;
        }
        assert_eq!(arms.into_iter().collect::<Vec<_>>(), [("0".into(), 2), ("3".into(), 2), ("null".into(), 6)]);
    }
    assert_eq!(power().status.code(), Some(2), "results are never overwritten");
}

/// The one that stands in the README, as its reader would keep it.
#[test]
fn an_experiment_of_the_users_own_is_planned_run_and_reported() {
    let readme = include_str!("../README.md");
    let (_, text) = readme.split_once("```toml\n").expect("an example");
    let (text, _) = text.split_once("```").expect("its end");
    let directory = tempfile::tempdir().expect("a directory");
    let (file, out) = (directory.path().join("mine.toml"), directory.path().join("run"));
    fs::write(&file, text).expect("written");
    let perseq = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
        command.args(arguments).arg("--definition").arg(&file);
        command
    };
    let listed = perseq(&["list"]).output().expect("perseq starts");
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("large-objects/size_bytes=8192") && !listed.contains("E01"), "{listed}");
    let run =
        perseq(&["run", "--blocks", "2", "--measure-ms", "10"]).arg("--out").arg(&out).output().expect("perseq starts");
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    // Where other processes take the CPUs, some are taken again.
    let samples: BTreeSet<_> = rows(&out).iter().map(|row| row["sample_id"].to_string()).collect();
    assert_eq!(samples.len(), 2 * 2 * 3, "{samples:?}");
    // Needed no more.
    fs::write(&file, text.replace("large-objects", "E01")).expect("written");
    let report = Command::new(env!("CARGO_BIN_EXE_perseq")).arg("report").arg(&out).output().expect("perseq starts");
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    let report = fs::read_to_string(out.join("report/report.md")).expect("a report");
    assert!(report.contains("large-objects Objects of some kibibytes"), "{report}");
    let refused = perseq(&["run"]).output().expect("perseq starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("mine.toml: the id E01 is that of another experiment"), "{said}");
}
