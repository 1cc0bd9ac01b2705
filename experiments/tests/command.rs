//! Drives the real binary the way a user or a script does.

#[path = "kit/library.rs"]
mod library;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn perseq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perseq")).args(arguments).output().expect("perseq starts")
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

/// A run of a few very short samples.
fn tiny(out: &Path) -> Output {
    let out = out.to_str().expect("a path in UTF-8");
    let filter = "E01/depth=1$|E03/rule=C/threads_per_cpu=4$|E04/rule=A/threads_per_cpu=1$";
    perseq(&["run", "--filter", filter, "--blocks", "2", "--measure-ms", "20", "--seed", "7", "--out", out])
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("a file of the run").lines().map(str::to_owned).collect()
}

/// Both survive `exec`; a run ended by a signal of its own in the one case, and at no time in the other.
#[test]
fn whoever_ignores_or_blocks_the_ends_of_children_may_start_a_run() {
    for option in ["--ignore-signal=CHLD", "--block-signal"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "300", "env", option, env!("CARGO_BIN_EXE_perseq")]);
        command.args(["suite", "--only", "system", "--filter", "churn", "--percent", "5", "--blocks", "2", "--out"]);
        let output = command.arg(folder.path().join("run")).output().expect("timeout starts");
        assert_eq!(code(&output), 0, "{option}: {}", stderr(&output));
    }
}

#[test]
fn wrong_input_is_exit_2_and_one_clear_line() {
    for arguments in [
        &["run", "--profile", "huge"][..],
        &["run", "--no-such-flag"],
        &["run", "--modes", "percpu,best"],
        &["run", "--filter", "("],
        &["run", "--blocks", "0"],
        &["run", "--filter", "E99", "--dry-run"],
        &["report", "no/such/directory"],
        &["resume", "no/such/directory"],
        &["frobnicate"],
        &[],
    ] {
        let output = perseq(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}");
    }
    assert!(stderr(&perseq(&["report", "no/such/directory"])).contains("no such directory"));
}

#[test]
fn the_command_documents_itself() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&perseq(&["completions", shell]));
        assert!(script.contains("perseq") && script.contains("fail-on-regression"), "{shell}");
        for internal in ["worker", "limits-probe", "torture-actor"] {
            assert!(!script.contains(internal), "{shell} completes {internal}");
        }
    }
    let page = stdout(&perseq(&["man"]));
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
    for word in ["Exit codes", "NO_COLOR", "COMMAND COMPARE", "fail"] {
        assert!(page.contains(word), "{word}");
    }
    assert!(!page.contains("worker"), "what only perseq starts is nobody's business");
    assert_eq!(code(&perseq(&["completions", "tcl"])), 2);
    // Never a colour where nobody asked for one.
    let plain = Command::new(env!("CARGO_BIN_EXE_perseq")).arg("frobnicate").env("NO_COLOR", "1").output();
    assert!(!stderr(&plain.expect("perseq starts")).contains('\u{1b}'));
}

/// Put into a folder with a blank by `install.sh`, from which it is run; then taken away again.
#[test]
fn an_installed_command_finds_what_it_preloads_and_is_completed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (prefix, release) = (folder.path().join("a prefix"), folder.path().join("target/release"));
    fs::create_dir_all(&release).expect("a folder");
    fs::copy(env!("CARGO_BIN_EXE_perseq"), release.join("perseq")).expect("a copy");
    fs::copy(library::built("recorder"), release.join("libperseq_recorder.so")).expect("a copy");
    for other in ["libperseq.so", "libperseq.a", "libperseq_cache_plugin.so", "libperseq_plugin.so"] {
        fs::write(release.join(other), other).expect("a file that is not looked into here");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../preload/install.sh");
    let install = |options: &[&str]| {
        let mut command = Command::new("bash");
        command.arg(&script).args(options).arg(&prefix).env("CARGO_TARGET_DIR", folder.path().join("target"));
        let output = command.output().expect("bash starts");
        assert_eq!(code(&output), 0, "{options:?}: {}", stderr(&output));
    };
    install(&["--built", "--command"]);
    let mut record = Command::new(prefix.join("bin/perseq"));
    record.args(["trace", "record", "--out"]).arg(folder.path().join("recording")).args(["--", "ls", "/"]);
    let recorded = record.output().expect("perseq starts");
    assert_eq!(code(&recorded), 0, "{}", stderr(&recorded));
    for library in ["libperseq.so", "perseq/libperseq_cache_plugin.so", "perseq/libperseq_plugin.so"] {
        let name = library.rsplit('/').next().expect("a name");
        assert_eq!(fs::read_to_string(prefix.join("lib").join(library)).ok().as_deref(), Some(name));
    }
    let page = fs::read_to_string(prefix.join("share/man/man1/perseq.1")).expect("a page");
    assert!(page.contains(".TH perseq 1"), "{page}");
    for file in ["zsh/site-functions/_perseq", "fish/vendor_completions.d/perseq.fish"] {
        let completion = fs::read_to_string(prefix.join("share").join(file)).expect(file);
        assert!(completion.contains("selftest"), "{file}");
    }
    // As bash does when somebody types `perseq selft` and the tabulator.
    let words =
        r#"source "$0"; COMP_WORDS=(perseq selft) COMP_CWORD=1; _perseq perseq selft perseq; echo "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    let completed = bash.args(["-c", words]).arg(prefix.join("share/bash-completion/completions/perseq")).output();
    assert_eq!(stdout(&completed.expect("bash starts")), "selftest\n");

    install(&["--uninstall"]);
    assert_eq!(fs::read_dir(&prefix).expect("the prefix").count(), 0);
}

#[test]
fn what_makes_no_sense_on_the_command_line_is_said() {
    for (arguments, sentence) in [
        (
            &["run", "--dry-run", "--modes", "percpu,perthread,percpu"][..],
            "`--modes`: `percpu` stands in the list twice",
        ),
        (&["torture", "--storms", "forks,forks"], "`--storms`: `forks` stands in the list twice"),
        (&["suite", "--only", "system,system"], "`--only`: `system` stands in the list twice"),
        (&["run", "--dry-run", "--max-threads", "0"], "0 is not in 1.."),
        (&["run", "--dry-run", "--max-mem", "0"], "0 is not in 1.."),
    ] {
        let output = perseq(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(sentence), "{arguments:?}: {}", stderr(&output));
    }
    let dry = |modes, cells| perseq(&["run", "--dry-run", "--modes", modes, "--filter", cells]);
    for (modes, cells, alone) in [
        ("percpu,central", "E01", true),
        ("percpu,perthread", "E01", false),
        ("percpu,perthread", "E03/rule=B", true),
        ("percpu,perthread-drain", "E03/rule=B", false),
    ] {
        let output = dry(modes, cells);
        assert_eq!(code(&output), 0, "{modes} in {cells}");
        assert_eq!(
            stderr(&output).contains("no ratios come of this"),
            alone,
            "{modes} in {cells}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in [
        "",
        "doctor",
        "selftest",
        "list",
        "run",
        "resume",
        "report",
        "rows",
        "compare",
        "trace",
        "peers",
        "suite",
        "torture",
        "limits",
        "calibrate",
        "power",
        "stats",
        "top",
        "map",
    ] {
        let arguments: Vec<_> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let output = perseq(&arguments);
        assert_eq!(code(&output), 0, "{command}");
        let text = stdout(&output);
        assert!(text.contains("Examples:") && text.contains(&format!("perseq {command}")), "{command}: {text}");
    }
}

#[test]
fn a_dry_run_in_json_is_the_plan() {
    let output = perseq(&["run", "--dry-run", "--json", "--seed", "3", "--filter", "E02", "--profile", "standard"]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["seed"], 3);
    assert!(plan["seconds"].as_f64() > Some(0.0));
    assert!(plan["samples"].as_array().expect("samples").iter().all(|sample| sample["experiment"] == "E02"));
    assert_eq!(code(&perseq(&["run", "--json"])), 2);
    assert_eq!(code(&perseq(&["list", "--filter", "E99"])), 2);
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let arguments = ["run", "--dry-run", "--seed", "3", "--out", out.to_str().expect("UTF-8")];
    let (first, second) = (perseq(&arguments), perseq(&arguments));
    assert_eq!(code(&first), 0);
    assert!(stdout(&first).contains("E03/rule=B/threads_per_cpu=32/block=0/percpu-twin"));
    assert_eq!(stdout(&first), stdout(&second), "the seed decides everything");
    assert!(!out.exists());
}

#[test]
fn list_and_doctor_speak_json() {
    let list: serde_json::Value = serde_json::from_slice(&perseq(&["list", "--json"]).stdout).expect("JSON");
    assert_eq!(list[0]["id"], "E01");
    let doctor: serde_json::Value = serde_json::from_slice(&perseq(&["doctor", "--json"]).stdout).expect("JSON");
    assert!(doctor["cpu"]["online"].get("value").is_some());
    let events = doctor["pmu"]["events"].as_array().expect("a list");
    assert!(events.iter().all(|event| event["status"].is_string()));
}

#[test]
fn doctor_looks_deeper_when_asked() {
    let deep: serde_json::Value =
        serde_json::from_slice(&perseq(&["doctor", "--deep", "--json"]).stdout).expect("JSON");
    for fact in ["processor", "aborts", "round_trip_ns"] {
        let fact = &deep["deep"][fact];
        assert!(!fact["value"].is_null() || fact["reason"].is_string(), "{fact}");
    }
    // As root on a kernel with the tracepoint, the kernel's count is the allocator's.
    if let Some(counts) = deep["deep"]["aborts"]["value"].as_array() {
        let (kernel, own) = (counts[0].as_u64().expect("a count"), counts[1].as_u64().expect("a count"));
        assert!(kernel >= own, "the kernel aborted {kernel} sequences, {own} restarted");
    }
    assert!(stdout(&perseq(&["doctor", "--deep"])).contains("deep"));
}

#[test]
fn the_selftest_passes_and_names_every_check() {
    let output = perseq(&["selftest"]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{text}");
    for check in ["clock", "known sleep", "percpu: preemption", "central: known objects", "stranded bytes", "A/A"] {
        assert!(text.lines().any(|line| line.starts_with(check)), "{check} in {text}");
    }
}

#[test]
fn a_run_is_complete_reproducible_resumable_and_never_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let output = tiny(&out);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = stdout(&output);
    let [conclusion, host, page] = said.lines().collect::<Vec<_>>()[..] else { panic!("three lines: {said}") };
    assert!(conclusion.starts_with("percpu beside perthread, ") && conclusion.contains(": worse in "), "{conclusion}");
    assert!(host.starts_with("host: ") && host.contains("not to be cited"), "{host}");
    assert!(page.ends_with("report/report.html") && Path::new(page).is_file());
    let html = fs::read_to_string(page).expect("a page");
    for part in html.split("href=\"#").skip(1) {
        let anchor = part.split('"').next().expect("an anchor");
        assert!(html.contains(&format!("<h2 id=\"{anchor}\"")), "{anchor} leads nowhere");
    }
    assert!(html.contains("href=\"#what-may-be-claimed\""));

    // Every planned sample has a row, and every row proves its mode.
    let (plan, samples) = (lines(&out.join("plan.jsonl")), lines(&out.join("samples.jsonl")));
    assert!(samples.len() >= plan.len());
    for line in &samples {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if row["mode_requested"] != "system" {
            assert_eq!(row["mode_requested"], row["mode_active"], "{line}");
            assert!(row["mode_proof"]["fallback_ops"].is_u64());
        }
        assert_eq!(row["verified"], true);
        assert!(row["counters"].is_null() && row["counters_status"].is_string());
    }

    // No name, address or path of this host.
    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let secret = directory.path().to_str().expect("UTF-8");
    assert!(!manifest.contains(secret) && !samples.concat().contains(secret));

    // Never overwritten.
    assert!(stderr(&output).contains("samples to take"));
    let quiet = directory.path().join("quiet");
    let quiet = quiet.to_str().expect("UTF-8");
    let quiet =
        perseq(&["run", "-q", "--filter", "E01/depth=1$", "--blocks", "1", "--measure-ms", "20", "--out", quiet]);
    let said = stderr(&quiet);
    assert!(code(&quiet) == 0 && !said.contains("sample") && !said.contains("E00"), "{said}");
    let again = tiny(&out);
    assert_eq!(code(&again), 2);
    assert!(stderr(&again).contains("never overwritten"));
    assert_eq!(lines(&out.join("samples.jsonl")), samples);

    // The same rows, the same bytes.
    let report = |name: &str| fs::read(out.join("report").join(name)).expect("a report");
    let names = ["report.html", "report.md", "summary.csv", "figures/forest.svg"];
    let before = names.map(report);
    fs::remove_dir_all(out.join("report")).expect("a report to remove");
    assert_eq!(code(&perseq(&["report", out.to_str().expect("UTF-8")])), 0);
    assert_eq!(names.map(report), before);

    every_number_has_its_rows(&out, &samples);

    // Resume takes what is missing, drops half a line, and has nothing to do the second time.
    let kept = samples[..samples.len() - 3].join("\n") + "\n" + &samples[samples.len() - 3][..40];
    fs::write(out.join("samples.jsonl"), kept).expect("rows to cut");
    let resumed = perseq(&["resume", out.to_str().expect("UTF-8")]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains("cut off"));
    let after = lines(&out.join("samples.jsonl"));
    let ids = |lines: &[String]| {
        let id =
            |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["sample_id"].to_string();
        lines.iter().map(id).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&after), ids(&samples));
    // They worked in turns with what was there before, and can no more.
    let (kept, taken) = after.split_at(samples.len() - 3);
    let torn = |line: &String| line.contains("taken without others of its block");
    assert!(!kept.iter().any(torn) && taken.iter().all(torn), "{taken:?}");
    assert_eq!(code(&perseq(&["resume", out.to_str().expect("UTF-8")])), 0);
    assert_eq!(lines(&out.join("samples.jsonl")), after);

    // A foreign or broken file is refused by name, and half a line where the run is finished.
    let path = out.join("samples.jsonl");
    let refuse = |text: &str, expected: &str| {
        fs::write(&path, text).expect("rows to break");
        let output = perseq(&["report", out.to_str().expect("UTF-8")]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("samples.jsonl") && stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1);
    };
    refuse(&after.join("\n").replace("\"schema\":\"1.", "\"schema\":\"9."), "schema 9.");
    refuse("{}\n", "no `schema`");
    refuse("not json\n", "expected one JSON object");
    let cut = after[..after.len() - 1].join("\n") + "\n" + &after[after.len() - 1][..25];
    refuse(&cut, "cut off after 25 bytes and is left out, and the run is finished; `perseq resume` takes it again");
    fs::remove_file(&path).expect("rows to remove");
    let output = perseq(&["report", out.to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("samples.jsonl: cannot read"));
}

/// The commands that the report prints beside its tables find the rows, and from them the same numbers.
fn every_number_has_its_rows(out: &Path, samples: &[String]) {
    let report = fs::read_to_string(out.join("report/report.md")).expect("a report");
    let summary = fs::read_to_string(out.join("report/summary.csv")).expect("a summary");
    for id in ["E01", "E03", "E04"] {
        let section = report.split(&format!("## {id} ")).nth(1).expect("a section");
        let command = section.split('`').find(|code| code.starts_with("perseq rows . --metric")).expect("a command");
        let words: Vec<_> = command.split(' ').skip(1).collect();
        let run = |more: &[&str]| {
            let arguments: Vec<_> = words.iter().copied().chain(more.iter().copied()).collect();
            let output = Command::new(env!("CARGO_BIN_EXE_perseq")).args(arguments).current_dir(out).output();
            let output = output.expect("perseq starts");
            assert_eq!(code(&output), 0, "{command}: {}", stderr(&output));
            stdout(&output)
        };
        // Each value is the one of the line it names.
        let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
        let mut values = 0;
        for line in json.as_array().expect("lines") {
            let number = line["line"].as_u64().expect("a number") as usize;
            let row: serde_json::Value = serde_json::from_str(&samples[number - 1]).expect("JSON");
            assert_eq!(row["sample_id"], line["sample_id"]);
            if row["status"] == "ok" && !line["value"].is_null() {
                assert_eq!(row["metrics"][words[3]], line["value"], "{line}");
                values += 1;
            }
        }
        assert!(values > 0, "{command}");
        // The ratio is the one of the summary.
        let text = run(&[]);
        let metric = words[3];
        for found in text.lines().filter(|line| line.contains(" percpu: ") && line.contains(", to perthread ")) {
            let cell = found.split(' ').next().expect("a cell");
            let ratio: f64 =
                found.rsplit("perthread ").next().and_then(|end| end.split(' ').next()?.parse().ok()).expect("a ratio");
            let line = summary
                .lines()
                .find(|line| line.contains(&format!("{cell},{metric},")) && line.contains(",perthread,percpu,"));
            let expected: f64 =
                line.and_then(|line| line.split(',').nth(9)?.parse().ok()).expect("a ratio in the summary");
            assert!((ratio / expected - 1.0).abs() < 0.006, "{found}: {expected}");
        }
    }
    // Any other value by its pointer; what no row has is refused.
    let path = out.to_str().expect("UTF-8");
    assert!(stdout(&perseq(&["rows", path, "--metric", "/allocator/restarts", "--modes", "percpu"])).contains("sum"));
    assert!(stdout(&perseq(&["rows", path])).contains(&format!("{} rows: ", samples.len())));
    for wrong in [["--metric", "no_such"], ["--filter", "E99"]] {
        let output = perseq(&["rows", path, wrong[0], wrong[1]]);
        assert_eq!(code(&output), 2);
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn a_cell_beyond_a_cap_is_skipped_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let out = out.to_str().expect("UTF-8");
    let output = perseq(&["run", "--filter", "E03/rule=A", "--blocks", "1", "--max-threads", "1", "--out", out]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let samples = lines(&Path::new(out).join("samples.jsonl"));
    assert!(samples.iter().all(|row| row.contains("\"status\":\"skipped\"") && row.contains("this host allows 1")));
}

#[test]
fn a_worker_without_an_order_says_what_it_expected() {
    let output = perseq(&["worker"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("expected an order in JSON"));
}
