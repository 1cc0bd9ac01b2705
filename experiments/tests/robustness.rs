//! What a run does when it is interrupted, when its disk is full, and when its files are not what they should be.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const FILTER: &str = "E01/depth=1$";

fn perseq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perseq")).args(arguments).output().expect("perseq starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn an_interrupted_run_resumes_to_the_same_plan() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let mut run = Command::new(env!("CARGO_BIN_EXE_perseq"))
        .args(["run", "--filter", FILTER, "--blocks", "8", "--measure-ms", "40", "--seed", "5", "--out"])
        .arg(&out)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("perseq starts");
    let (samples, begin) = (out.join("samples.jsonl"), Instant::now());
    while lines(&samples) < 3 {
        assert!(begin.elapsed() < Duration::from_secs(120), "no samples are written");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(run.id() as i32), Signal::SIGINT).expect("the run is alive");
    assert_eq!(run.wait().expect("the run ends").code(), Some(4));
    let plan = fs::read_to_string(out.join("plan.jsonl")).expect("a plan");
    let taken = fs::read_to_string(&samples).expect("rows");
    assert!(lines(&samples) >= 3 && taken.lines().count() < plan.lines().count());

    let resumed = perseq(&["resume", out.to_str().expect("UTF-8")]);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    assert_eq!(fs::read_to_string(out.join("plan.jsonl")).expect("a plan"), plan);
    let all = fs::read_to_string(&samples).expect("rows");
    assert!(all.starts_with(&taken), "rows are appended, never changed");
    for planned in plan.lines() {
        let planned: serde_json::Value = serde_json::from_str(planned).expect("JSON");
        let id = planned["sample_id"].to_string();
        assert!(all.lines().any(|row| row.contains(&id)), "{id}");
    }

    // The sums are those of sha256sum, and a file that was changed afterwards is noticed.
    let check = Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out).status();
    assert!(check.expect("sha256sum starts").success());
    fs::write(&samples, all.lines().next().expect("a row").to_owned() + "\n").expect("rows to cut");
    let report = perseq(&["report", out.to_str().expect("UTF-8")]);
    assert_eq!(report.status.code(), Some(2));
    assert!(stderr(&report).contains("samples have no row"), "{}", stderr(&report));
}

#[test]
fn a_full_disk_is_one_clear_line_and_what_was_taken_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    // No file may grow beyond 64 KiB: more than the manifest needs, less than the rows do.
    let script = r#"ulimit -f 64; exec "$0" "$@""#;
    let run = |limited: bool, arguments: &[&str]| {
        let binary = env!("CARGO_BIN_EXE_perseq");
        let mut command = Command::new(if limited { "bash" } else { binary });
        if limited {
            command.args(["-c", script, binary]);
        }
        command.args(arguments).output().expect("the command starts")
    };
    let path = out.to_str().expect("UTF-8");
    let arguments = ["run", "--filter", FILTER, "--blocks", "12", "--measure-ms", "5", "--seed", "5", "--out", path];
    let full = run(true, &arguments);
    assert_eq!(full.status.code(), Some(3), "{}", stderr(&full));
    let last = stderr(&full).lines().last().map(str::to_owned).expect("a line");
    assert!(last.contains("samples.jsonl: cannot append") && last.contains("resume"), "{last}");
    let kept = lines(&out.join("samples.jsonl"));
    assert!(kept > 3, "{kept}");

    let resumed = run(false, &["resume", path]);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    assert!(lines(&out.join("samples.jsonl")) >= lines(&out.join("plan.jsonl")));
}

#[test]
fn files_that_are_missing_cut_or_foreign_are_named_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let path = out.to_str().expect("UTF-8");
    let run = perseq(&["run", "--filter", FILTER, "--blocks", "2", "--measure-ms", "5", "--seed", "5", "--out", path]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    for (file, expected) in [("manifest.json", "expected"), ("plan.jsonl", "expected one JSON object")] {
        let good = fs::read_to_string(out.join(file)).expect("a file of the run");
        let foreign = good.replacen("\"schema\": \"1.", "\"schema\": \"7.", 1);
        let broken = [good[..good.len() / 2 - 7].to_owned(), "\u{1f980}".to_owned(), foreign.clone()];
        for text in broken.iter().filter(|text| **text != good) {
            fs::write(out.join(file), text).expect("a file to break");
            for command in ["report", "resume"] {
                let output = perseq(&[command, path]);
                assert_eq!(output.status.code(), Some(2), "{command} {file}");
                let line = stderr(&output);
                assert!(line.contains(file) && (line.contains(expected) || line.contains("schema")), "{line}");
                assert_eq!(line.lines().count(), 1, "{line}");
            }
        }
        fs::remove_file(out.join(file)).expect("a file to remove");
        let output = perseq(&["compare", path, path]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        fs::write(out.join(file), good).expect("a file to restore");
    }
}

#[test]
fn compare_finds_what_changed_and_refuses_what_is_another_question() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let path = first.to_str().expect("UTF-8");
    let run = perseq(&["run", "--filter", FILTER, "--blocks", "4", "--measure-ms", "5", "--seed", "5", "--out", path]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    fs::create_dir(&second).expect("a directory");
    let copy = |file: &str, change: &dyn Fn(&str) -> String| {
        let text = fs::read_to_string(first.join(file)).expect("a file of the run");
        fs::write(second.join(file), change(&text)).expect("a file of the second run");
    };
    let compare = |more: &[&str]| {
        let mut arguments = vec!["compare", "--accept-changed", path, second.to_str().expect("UTF-8")];
        arguments.extend(more);
        perseq(&arguments)
    };
    let same = |text: &str| text.to_owned();
    copy("manifest.json", &same);
    copy("plan.jsonl", &same);

    // The same rows: nothing changed. Rows that were edited are refused unless they are asked for.
    copy("samples.jsonl", &same);
    let output = compare(&["--fail-on-regression", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    // Every time doubled: worse, and found.
    let doubled = |text: &str| {
        let double = |line: &str| {
            let mut row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let block = row["block"].as_f64().expect("a number");
            // Nearly constant, so that the interval is narrow whatever the host did.
            row["metrics"]["ns_per_pair"] = (20.0 + block * 0.01).into();
            row.to_string() + "\n"
        };
        text.lines().map(double).collect::<String>()
    };
    let constant = |text: &str| doubled(text).replace("\"ns_per_pair\":2", "\"ns_per_pair\":1");
    copy("samples.jsonl", &doubled);
    fs::write(first.join("samples.jsonl"), constant(&fs::read_to_string(first.join("samples.jsonl")).expect("rows")))
        .expect("rows to write");
    let refused = perseq(&["compare", path, second.to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let output = compare(&["--fail-on-regression", "50", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(json["changes"].as_array().expect("changes").iter().all(|change| change["verdict"] == "worse"), "{json}");
    assert_eq!(compare(&["--fail-on-regression", "150"]).status.code(), Some(0));

    // Another host: values are not compared, ratios are; a limit on values makes no sense.
    copy("manifest.json", &|text| text.replace("\"host_caption\": \"", "\"host_caption\": \"Another "));
    let output = compare(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("two hosts"));
    assert_eq!(compare(&["--fail-on-regression", "5"]).status.code(), Some(2));

    // Another length of the measured part is another question.
    copy("manifest.json", &same);
    copy("samples.jsonl", &|text| text.replace("\"measure_ms\":5", "\"measure_ms\":6"));
    let output = compare(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("measure_ms is 5 and 6"), "{}", stderr(&output));
}
