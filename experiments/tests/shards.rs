//! Parts of a plan: each refused where it cannot be, taken, killed and taken up again, and joined to the run that would
//! have taken all; what is no part of the same plan is refused, with the difference named.

#[path = "kit/forged.rs"]
mod forged;
#[path = "kit/plain.rs"]
mod plain;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A plan of one cell: ten blocks of two modes and the twin.
const RUN: &str = "run --filter E01/depth=1$ --modes percpu,perthread --blocks 10 --measure-ms 50 --seed 5";

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(arguments.split(' ').filter(|word| !word.is_empty()));
    // Peers built by the user play no part.
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

/// Runs perseq, and ends it if it does not end by itself.
fn perseq(folder: &Path, arguments: &str) -> Output {
    let own = command(folder, arguments);
    let mut timed = Command::new("timeout");
    timed.args(["--kill-after=5", "600"]).arg(own.get_program()).args(own.get_args());
    timed.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).output().expect("timeout starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(folder: &Path, arguments: &str) -> Output {
    let output = perseq(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", stderr(&output));
    output
}

/// It is refused in one line that says all of these, and nothing is written.
fn refused(folder: &Path, arguments: &str, said: &[&str]) {
    let output = perseq(folder, arguments);
    let line = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments}: {line}");
    assert!(said.iter().all(|words| line.contains(words)), "{arguments}: {said:?}: {line}");
    assert!(line.lines().count() == 1 && output.stdout.is_empty(), "{arguments}: {line}");
    assert!(!folder.join("refused").exists(), "{arguments}: nothing is written");
}

fn lines(root: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(root.join(file)).expect("a file of the run");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn manifest(root: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(root.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// A copy of a run, changed by someone who makes its sums right again.
fn copy(folder: &Path, from: &str, to: &str, change: impl FnOnce(&mut Value)) {
    drop(fs::remove_dir_all(folder.join(to)));
    let copied = Command::new("cp").args(["-r", from, to]).current_dir(folder).status();
    assert!(copied.expect("cp starts").success());
    forged::manifest(&folder.join(to), change);
    forged::sums(&folder.join(to));
}

/// All files below a folder.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).expect("below it").to_owned();
                found.insert(name, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    found
}

/// Starts a part and kills it when it has some rows.
fn killed(folder: &Path, arguments: &str, root: &Path) {
    let mut part =
        command(folder, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("perseq starts");
    let begin = Instant::now();
    while fs::read_to_string(root.join("samples.jsonl")).map_or(0, |text| text.lines().count()) < 2 {
        assert!(begin.elapsed() < Duration::from_secs(300), "no samples are written");
        std::thread::sleep(Duration::from_millis(5));
    }
    part.kill().expect("the part is alive");
    part.wait().expect("the part ends");
    assert!(lines(root, "samples.jsonl").len() < lines(root, "plan.jsonl").len(), "it was over before it was killed");
    assert!(manifest(root)["finished_utc"].is_null());
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (shard, seed, said) in [
        ("0/2", true, "expected K/N"),
        ("3/2", true, "expected K/N"),
        ("1/0", true, "expected K/N"),
        ("2", true, "expected K/N"),
        ("one/two", true, "expected K/N"),
        ("1/2", false, "--seed"),
        ("1/11", true, "the plan has 10 blocks"),
        ("11/11", true, "the plan has 10 blocks"),
    ] {
        let run = if seed { RUN.to_owned() } else { RUN.replace(" --seed 5", "") };
        for dry in ["--dry-run", "--out refused"] {
            let output = perseq(folder.path(), &format!("{run} --shard {shard} {dry}"));
            assert_eq!(output.status.code(), Some(2), "{shard}: {}", stderr(&output));
            assert!(stderr(&output).contains(said), "{shard}: {}", stderr(&output));
            assert!(!folder.path().join("refused").exists(), "{shard}");
        }
    }
    refused(folder.path(), "merge no/such", &["no/such: no such directory"]);
    assert_eq!(perseq(folder.path(), "merge").status.code(), Some(2));
    // Every command that has parts has the same plan in them, each sample once.
    for plan in [RUN, "simulate --filter E0[13] --seeds 3"] {
        let planned = |shard: &str| -> BTreeSet<String> {
            let text = good(folder.path(), &format!("{plan} {shard} --dry-run")).stdout;
            let text = String::from_utf8(text).expect("UTF-8");
            let samples = text.lines().filter(|line| line.contains("/block="));
            samples.map(|line| line.to_owned()).collect()
        };
        let parts: Vec<_> = (1..=4).map(|number| planned(&format!("--shard {number}/4"))).collect();
        let whole = planned("");
        assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), whole.len(), "{plan}");
        assert_eq!(parts.into_iter().flatten().collect::<BTreeSet<_>>(), whole, "{plan}");
    }
}

/// Two parts, one of them killed in the middle, and all that can be done with them; a whole run beside them.
#[test]
fn parts_are_joined_to_the_run_that_takes_all_of_the_plan() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (one, two, whole, joined) = (folder.join("1"), folder.join("2"), folder.join("whole"), folder.join("joined"));
    good(folder, &format!("{RUN} --shard 1/2 --out 1"));
    let second = format!("{RUN} --shard 2/2 --out 2");
    killed(folder, &second, &two);
    refused(folder, "merge 1 2 --out refused", &["2: a part that is not finished", "perseq resume"]);
    refused(folder, &second, &["never overwritten"]);

    // What was killed goes on where it was, but on its own host alone: another one with the same processor is not.
    let mark = manifest(&two)["part"]["host"].clone();
    forged::manifest(&two, |manifest| manifest["part"]["host"] = json!({"value": "another boot"}));
    refused(folder, "resume 2", &["begun on another host"]);
    forged::manifest(&two, |manifest| manifest["part"]["host"] = mark);
    good(folder, "resume 2");

    // A part is a run of its own.
    for part in ["1", "2"] {
        good(folder, &format!("report {part}"));
        good(folder, &format!("rows {part}"));
        let report = fs::read_to_string(folder.join(part).join("report/report.md")).expect("a report");
        let told = format!("A PART: {part}/2 of a plan of 30 samples.");
        assert!(report.lines().take(5).any(|line| line.contains(&told)), "{report}");
    }

    let said = good(folder, "merge 1 2 --out joined");
    assert!(stderr(&said).contains("2 parts, "), "{}", stderr(&said));
    assert!(String::from_utf8_lossy(&said.stdout).contains("joined/report/report.html"));
    // The plan is that of a run which takes all of it, but for what the host found out.
    let dry = good(folder, &format!("{RUN} --dry-run --json")).stdout;
    let dry: Value = serde_json::from_slice(&dry).expect("a plan in JSON");
    let mut plan = lines(&joined, "plan.jsonl");
    for planned in &mut plan {
        let found = planned.as_object_mut().and_then(|planned| planned.remove("links_per_ms"));
        assert!(found.is_some_and(|links| links.is_u64()));
    }
    assert_eq!(json!(plan), dry["samples"]);
    // Its rows are those of the parts, which they name, but for what each is chained to.
    let bare = |root: &Path| -> Vec<Value> {
        let mut rows = lines(root, "samples.jsonl");
        rows.iter_mut().for_each(|row| row["previous"] = Value::Null);
        rows
    };
    let mut own = [bare(&one), bare(&two)].concat();
    own.sort_by_key(|row| row["order_index"].as_u64());
    assert_eq!(bare(&joined), own);
    let mut blocks: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for row in &own {
        let run = row["run_id"].as_str().expect("a name");
        blocks.entry(row["block"].as_u64().expect("a block")).or_default().insert(run);
    }
    assert!(blocks.len() == 10 && blocks.values().all(|runs| runs.len() == 1), "{blocks:?}");
    let of = |part: &str| blocks.values().filter(|runs| runs.iter().all(|run| run.ends_with(part))).count();
    assert_eq!([of("-part-1-of-2"), of("-part-2-of-2")], [5, 5]);
    // The manifest names them, with the roots of their chains, and the report shows that.
    let told = manifest(&joined);
    let report = fs::read_to_string(joined.join("report/report.md")).expect("a report");
    for (part, root) in told["parts"].as_array().expect("parts").iter().zip([&one, &two]) {
        let text = fs::read_to_string(root.join("samples.jsonl")).expect("rows");
        assert_eq!(part["root"], forged::sum(text.lines().last().expect("a row").as_bytes()));
        assert_eq!(part["run_id"], manifest(root)["run_id"]);
        assert_eq!(part["git_commit"], manifest(root)["tool"]["git_commit"]);
        assert!(report.contains(part["root"].as_str().expect("a root")), "{report}");
    }
    assert!(!report.contains("ACROSS HOSTS"), "{report}");
    // The report of a whole run is of the same cells, metrics and modes.
    good(folder, &format!("{RUN} --out whole"));
    let compared = |root: &Path| -> Vec<String> {
        let text = fs::read_to_string(root.join("report/summary.csv")).expect("a summary");
        let head = |line: &str| line.split(',').take(6).collect::<Vec<_>>().join(",");
        text.lines().map(head).collect()
    };
    assert!(compared(&whole).len() > 1);
    assert_eq!(compared(&joined), compared(&whole));

    // An ordinary run: read by all, complete, the same bytes whatever the order of its parts.
    good(folder, "merge 2 1 --out again");
    assert!(files(&joined) == files(&folder.join("again")), "the same parts, the same bytes");
    let before = files(&joined);
    for arguments in ["rows joined", "report joined", "resume joined", "compare joined whole", "compare whole joined"] {
        good(folder, arguments);
    }
    assert!(files(&joined) == before, "nothing is left to take");
    let check =
        |root: &Path| Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(root).status();
    assert!(check(&joined).expect("sha256sum starts").success());
    // Parts that are packed are the same parts, and a packed whole is the same whole.
    good(folder, "pack 1");
    good(folder, "merge 1 2 --out packed");
    assert!(files(&joined) == files(&folder.join("packed")), "the same parts, the same bytes");
    good(folder, "pack packed");
    good(folder, "report packed");

    refused(folder, "merge 1 2 --out joined", &["never overwritten"]);
    refuse_others(folder);
    refuse_changes(folder);
    several_hosts(folder);
}

/// What is no part of this plan, or not all of it.
fn refuse_others(folder: &Path) {
    refused(folder, "merge 1 --out refused", &["part 2/2 missing"]);
    refused(folder, "merge 2 --out refused", &["part 1/2 missing"]);
    refused(folder, "merge 1 2 1 --out refused", &["1 and 1 are both part 1/2"]);
    refused(folder, "merge 1 whole --out refused", &["whole: no part of a plan", "--shard"]);
    refused(folder, "merge joined --out refused", &["joined: no part of a plan"]);
    good(folder, "suite --only system --filter ^glibc-simple$ --percent 1 --blocks 2 --seed 5 --shard 2/2 --out suite");
    refused(folder, "merge 1 suite --out refused", &["`kind` differs", "run in 1", "suite in suite"]);
    good(folder, &format!("{} --shard 2/2 --out other", RUN.replace("--seed 5", "--seed 6")));
    refused(folder, "merge 1 other --out refused", &["`seed` differs", "5 in 1", "6 in other"]);
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("`options/blocks` differs: 10 in 1, 11 in changed", |manifest| manifest["options"]["blocks"] = 11.into()),
        ("`profile` differs: quick in 1, full in changed", |manifest| manifest["profile"] = "full".into()),
        ("`binary` differs", |manifest| manifest["tool"]["binary_sha256"] = "b0".into()),
        ("`commit/", |manifest| manifest["tool"]["git_commit"] = json!({"value": "c0"})),
        ("`number of parts` differs: 2 in 1, 3 in changed", |manifest| manifest["part"]["of"] = 3.into()),
        ("`plan` differs", |manifest| manifest["part"]["plan"] = "f0".into()),
    ];
    for (said, change) in changes {
        copy(folder, "2", "changed", change);
        refused(folder, "merge 1 changed --out refused", &["not parts of one plan", said]);
    }
    copy(folder, "2", "changed", |manifest| manifest["part"]["number"] = 1.into());
    refused(folder, "merge 1 changed --out refused", &["1 and changed are both part 1/2"]);
    // Both name another plan than the one that they make up.
    for part in [1, 2] {
        copy(folder, "2", &format!("same{part}"), |manifest| manifest["part"]["number"] = part.into());
    }
    refused(folder, "merge same1 same2 --out refused", &["is not the plan that each of them names"]);
}

/// What was changed before parts were joined, and after.
fn refuse_changes(folder: &Path) {
    copy(folder, "2", "changed", |_| {});
    let samples = folder.join("changed/samples.jsonl");
    let text = fs::read_to_string(&samples).expect("rows");
    fs::write(&samples, text.replacen("\"started_ns\":", "\"started_ns\":1", 1)).expect("rows");
    refused(folder, "merge 1 changed --out refused", &["changed: samples.jsonl: line 2"]);
    // Whoever makes all sums of the whole right again does not make those of its parts right.
    let change = |change: &dyn Fn(&mut String)| {
        copy(folder, "joined", "changed", |_| {});
        let samples = folder.join("changed/samples.jsonl");
        let mut text = fs::read_to_string(&samples).expect("rows");
        change(&mut text);
        fs::write(&samples, text).expect("rows");
        forged::everything(&folder.join("changed"));
    };
    change(&|_| {});
    good(folder, "report changed");
    change(&|text| *text = text.replacen("\"started_ns\":", "\"started_ns\":1", 1));
    refused(folder, "report changed", &["the rows of part", "not those that were joined"]);
    let read = perseq(folder, "report changed --accept-changed");
    assert_eq!(read.status.code(), Some(0), "{}", stderr(&read));
    change(&|text| {
        let (one, two) = text.split_once("-part-").expect("a part");
        let other = if two.starts_with('1') { '2' } else { '1' };
        *text = format!("{one}-part-{other}{}", &two[1..]);
    });
    refused(folder, "report changed", &["a row of the run"]);
    // What is cut off is not taken by a host that is none of theirs.
    copy(folder, "joined", "changed", |_| {});
    let samples = folder.join("changed/samples.jsonl");
    let text = fs::read_to_string(&samples).expect("rows");
    fs::write(&samples, &text[..text.len() - 40]).expect("rows");
    let output = perseq(folder, "resume changed");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("join the parts again"), "{}", stderr(&output));
}

/// Times of several hosts are joined where that is asked for, and the report begins with it.
fn several_hosts(folder: &Path) {
    let other = "A processor, 2 CPUs allowed, Linux 9";
    // The same to look at, and another; a part whose host is not known.
    let marks = [json!({"value": "another boot"}), json!({"value": null, "reason": "a test"})];
    for mark in marks {
        copy(folder, "2", "elsewhere", |manifest| manifest["part"]["host"] = mark);
        refused(
            folder,
            "merge 1 elsewhere --out refused",
            &["parts of 2 hosts", "(part 1)", "(part 2)", "--across-hosts"],
        );
    }
    copy(folder, "2", "elsewhere", |manifest| manifest["host_caption"] = other.into());
    refused(folder, "merge 1 elsewhere --out refused", &["parts of 2 hosts", &format!("{other} (part 2)")]);
    let output = good(folder, "merge 1 elsewhere --across-hosts --out hosts");
    assert!(String::from_utf8_lossy(&output.stdout).contains("values of several hosts"));
    let told = manifest(&folder.join("hosts"));
    assert_eq!(told["across_hosts"], true);
    assert!(told["host_caption"].as_str().is_some_and(|caption| caption.starts_with("2 hosts: ")), "{told}");
    assert!(told["parts"].as_array().is_some_and(|parts| parts.iter().all(|part| part["host_facts"].is_object())));
    let report = fs::read_to_string(folder.join("hosts/report/report.md")).expect("a report");
    assert!(report.lines().take(6).any(|line| line.contains("ACROSS HOSTS: values of 2 hosts")), "{report}");
    let (_, section) = report.split_once("## Hosts and parts").expect("a section");
    for words in
        [&format!("host 2: {other}"), "| E01/depth=1", "percpu to perthread", "| all |", "| host 1 |", "| host 2 |"]
    {
        assert!(section.contains(words), "{words}: {section}");
    }
    // No value of theirs is held against that of another run.
    let kind = |arguments: &str| -> Value {
        let output = good(folder, arguments).stdout;
        serde_json::from_slice::<Value>(&output).expect("JSON")["kind"].clone()
    };
    assert_eq!(kind("compare hosts hosts --json"), "ratios");
    assert_eq!(kind("compare joined joined --json"), "values");
    let rows = good(folder, "rows hosts");
    assert!(stderr(&rows).contains("ACROSS HOSTS"), "{}", stderr(&rows));
    good(folder, "resume hosts");
}

/// The suite and real programs in parts; a program says what it says on the C library whatever its part begins with.
#[test]
fn other_kinds_of_run_have_parts_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    plain::build(folder);
    let kinds = [
        ("suite", "suite --only system,plain --filter ^(glibc-simple|churn)$ --percent 1 --blocks 2 --seed 3", 12),
        ("programs", "programs --only bash --modes none --rounds 2", 4),
    ];
    for (kind, command, samples) in kinds {
        let parts: Vec<_> = (1..=2).map(|number| format!("{kind}-{number}")).collect();
        for (number, part) in (1..).zip(&parts) {
            good(folder, &format!("{command} --allocator plain=libplain.so --shard {number}/2 --out {part}"));
            let counts = |row: &Value| row["status"] == "ok" || row["status"] == "rejected";
            assert!(lines(&folder.join(part), "samples.jsonl").iter().all(counts), "{part}");
        }
        let names = parts.join(" ");
        good(folder, &format!("merge {names} --out {kind}"));
        let joined = folder.join(kind);
        let plan = lines(&joined, "plan.jsonl");
        let places: Vec<_> = plan.iter().map(|planned| planned["order_index"].as_u64()).collect();
        assert_eq!(places, (0..samples).map(Some).collect::<Vec<_>>());
        let made = if kind == "suite" { "report/report.md" } else { "table.txt" };
        let told = fs::read_to_string(joined.join(made)).expect("a report");
        assert!(told.contains("Joined from parts of one plan") && told.contains("-part-2-of-2"), "{told}");
        let before = files(&joined);
        good(folder, &format!("report {kind}"));
        good(folder, &format!("resume {kind} --allocator plain=libplain.so"));
        assert!(files(&joined) == before, "{kind}");
        copy(folder, &parts[1], "elsewhere", |manifest| manifest["part"]["host"] = json!({"value": "another boot"}));
        let apart = format!("merge {} elsewhere", parts[0]);
        refused(folder, &format!("{apart} --out refused"), &["parts of 2 hosts"]);
        good(folder, &format!("{apart} --across-hosts --out {kind}-hosts"));
        let told = fs::read_to_string(folder.join(format!("{kind}-hosts")).join(made)).expect("a report");
        assert!(told.lines().take(8).any(|line| line.contains("ACROSS HOSTS")), "{told}");
        assert!(told.contains("plain to system"), "{told}");
    }
    // One part of the programs begins with another allocator than the C library.
    let begins = |part: &str| lines(&folder.join(part), "plan.jsonl")[0]["allocator"].clone();
    let first = ["programs-1", "programs-2"].map(begins);
    assert!(first.contains(&"plain".into()), "{first:?}: choose another number of rounds");
}
