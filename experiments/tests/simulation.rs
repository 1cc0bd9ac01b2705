//! `perseq simulate`: what it refuses, what it plans, and that a guest gives the same bits each time.

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
#[path = "kit/forged.rs"]
mod forged;
#[path = "kit/library.rs"]
mod library;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs perseq where the directories of its runs are in nobody's way; killed if it hangs.
fn perseq(name: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "900", env!("CARGO_BIN_EXE_perseq"), name]).args(arguments);
    command.current_dir(folder.path()).output().expect("timeout")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn machines_that_cannot_be_are_refused() {
    for (arguments, named) in [
        (&["--geometry", "zen9"][..], "sapphire-rapids"),
        (&["--cpus", "65"], "65"),
        (&["--cpus", "0"], "0"),
        (&["--cpus", "8", "--llc-groups", "3"], "8 CPUs"),
        (&["--filter", "E99"], "E99"),
        (&["--modes", "best"], "best"),
        (&["--definition", "/no/such.toml"], "/no/such.toml"),
        (&["--plugin", "/no/such/plugin.so"], "perseq-cache-plugin"),
        (&["--preload", "best"], "no allocator `best`"),
        (&["--threads-per-cpu", "2,3,2"], "twice"),
        (&["--preload", "system", "--modes", "percpu"], "--modes"),
        (&["--allocator", "mine=/no/such.so"], "/no/such.so"),
        (&["--plugin", "/no/such/plugin.so"], "--plugin /no/such/plugin.so: "),
        (&["--suite", "best", "--preload", "system"], "no pattern matches --suite best; expected one of threadtest"),
        (&["--suite", "larson", "--filter", "E01"], "--filter"),
        (&["--suite", "larson", "--objects"], "--objects"),
        (&["--percent", "5"], "--suite"),
        (&["--validate", "--geometry", "zen3"], "--geometry"),
        (&["--validate", "--suite", "larson"], "--suite"),
    ] {
        let output = perseq("simulate", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(named), "{arguments:?}: {}", stderr(&output));
    }
}

/// A host without counters is told which are missing, before anything is fetched or any directory made. One that has them says
/// that there is no such experiment.
#[test]
fn a_host_without_counters_validates_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let (dir, cache) = (folder.path().join("run"), folder.path().join("cache"));
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "900", env!("CARGO_BIN_EXE_perseq"), "simulate", "--validate", "--filter", "E99"]);
    let output = command.arg("--out").arg(&dir).env("XDG_CACHE_HOME", &cache).output().expect("timeout");
    let said = stderr(&output);
    assert!(!dir.exists() && !cache.exists() && output.stdout.is_empty(), "{said}");
    if output.status.code() == Some(2) {
        return assert!(said.contains("E99"), "{said}");
    }
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("this host counts no cache misses") && said.contains("missing: cycles ("), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Cells are those of the guest's CPUs, not of the host's, and no start is planned twice.
#[test]
fn the_plan_is_that_of_the_guest() {
    let output = perseq("simulate", &["--cpus", "16", "--filter", "E01", "--seeds", "2", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.ends_with("8 guests\n"), "{plan}");
    assert!(plan.contains("E01/depth=1/block=1/perthread\n") && !plan.contains("twin"), "{plan}");

    let few = concat!(env!("CARGO_MANIFEST_DIR"), "/own/few-threads.toml");
    let output = perseq("simulate", &["--cpus", "64", "--definition", few, "--seeds", "1", "--dry-run"]);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("few-threads/threads=4/") && plan.ends_with("4 guests\n"), "{plan}{}", stderr(&output));

    let filter = "E03/rule=[AB]/threads_per_cpu";
    let arguments =
        ["--filter", filter, "--threads-per-cpu", "2,3,5", "--seeds", "1", "--preload", "system", "--dry-run"];
    let output = perseq("simulate", &arguments);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.ends_with("6 guests\n") && plan.contains("E03/rule=A/threads_per_cpu=5/block=0/system\n"), "{plan}");

    let arguments = ["--suite", "^(larson|churn)$", "--threads-per-cpu", "1,4", "--preload", "system", "--dry-run"];
    let output = perseq("simulate", &arguments);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.ends_with("9 guests\n") && plan.contains("suite/larson/threads_per_cpu=4/block=2/system\n"), "{plan}");
}

/// Its blocks are what counts are for each of, and its threads are as many as the guest has CPUs.
#[test]
fn a_pattern_of_the_suite_is_simulated() {
    let folder = tempfile::tempdir().expect("a directory");
    let (plugin, dir) = (library::built("cache-plugin"), folder.path().join("run"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let arguments = "--cpus 2 --suite ^xmalloc$ --preload system --seeds 1";
    let mut arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
    arguments.extend(["--plugin".into(), text(&plugin), "--out".into(), text(&dir)]);
    let output = perseq("simulate", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    if output.status.code() == Some(3) {
        return absence::not_tested("guest", "patterns in simulated machines", stderr(&output).trim());
    }
    let rows = fs::read_to_string(dir.join("samples.jsonl")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{} {rows}", stderr(&output));
    let row = &reports(&dir)[0];
    assert_eq!((&row[0], &row[1]), (&"suite/xmalloc/block=0/system".into(), &"ok".into()), "{row}");
    // One of two threads fills eight batches of 4096 objects, each with a block around it.
    assert!((8 * 4096..8 * 4097 + 1).contains(&row[5].as_u64().expect("a count")), "{row}");
    assert_eq!(row[7]["parts"], serde_json::json!([0, 0]), "it is measured whole");
    // An object of a line is written whole by one CPU and read by the other.
    assert!(row[6]["modified_transfers_in_group_per_pair"].as_f64() > Some(0.5), "{row}");
}

/// The rows of a run, each reduced to what its guest reported.
fn reports(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("samples.jsonl")).expect("rows");
    let parse = |line: &str| -> Value { serde_json::from_str(line).expect("a row in JSON") };
    let reported =
        ["sample_id", "status", "reason", "simulated", "mode_active", "pairs", "metrics", "counted", "unavailable"];
    let reduce = |row: Value| reported.iter().map(|name| row[*name].clone()).collect();
    text.lines().map(parse).map(reduce).collect()
}

/// Two guests of the same seed agree in every count; both modes prove themselves, and so does the attribution. So does
/// one that `resume` takes, with the same plugin alone.
#[test]
fn the_same_seed_gives_the_same_bits() {
    let folder = tempfile::tempdir().expect("a directory");
    let plugin = library::built("cache-plugin");
    let dirs = ["first", "second"].map(|name| folder.path().join(name));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for dir in &dirs {
        let arguments = "--cpus 2 --geometry zen3 --filter E01/depth=1$ --modes percpu --seeds 1 --measure-ms 20";
        let mut arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
        arguments.extend(["--plugin".into(), text(&plugin), "--out".into(), text(dir)]);
        let output = perseq("simulate", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        if output.status.code() == Some(3) {
            return absence::not_tested("guest", "simulated machines", stderr(&output).trim());
        }
        let rows = fs::read_to_string(dir.join("samples.jsonl")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(0), "{} {rows}", stderr(&output));
        let report = fs::read_to_string(dir.join("report/report.txt")).expect("a report");
        let second = report.lines().nth(1).unwrap_or_default();
        assert!(second.starts_with("SIMULATED") && report.contains("E01/depth=1"), "{report}");
    }
    let [first, second] = [&dirs[0], &dirs[1]].map(|dir| reports(dir));
    assert_eq!(first.len(), 1);
    let row = &first[0];
    assert_eq!((&row[1], &row[3], &row[4]), (&"ok".into(), &true.into(), &"percpu".into()), "{row}");
    let user = &row[7]["classes"]["user"]["total"];
    // A pair signs and checks its object and changes a list twice: few accesses, nearly all in the first level.
    let per_pair = row[6]["user_accesses_per_pair"].as_f64().expect("a metric");
    assert!((8.0..1000.0).contains(&per_pair), "{per_pair}");
    assert!(user["l1_misses"].as_u64() < user["reads"].as_u64().map(|reads| reads / 20), "{user}");
    assert_eq!(first, second);
    tiers_are_told_apart(row);

    let rows = fs::read_to_string(dirs[0].join("samples.jsonl")).expect("rows");
    let cut = &rows[..rows.len() - 40];
    fs::write(dirs[0].join("samples.jsonl"), cut).expect("rows");
    let other = folder.path().join("other.so");
    fs::write(&other, [fs::read(&plugin).expect("the plugin"), vec![0]].concat()).expect("another plugin");
    let resume = |plugin: &Path| perseq("resume", &[&text(&dirs[0]), "--plugin", &text(plugin)]);
    let refused = resume(&other);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("another plugin"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(dirs[0].join("samples.jsonl")).expect("rows"), cut);
    // What is preloaded is what is called; its sample stands beside the others in all but the mode.
    let third = folder.path().join("third");
    let arguments = "--cpus 2 --filter E01/depth=1$ --preload system --seeds 1 --measure-ms 20 --objects";
    let mut arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
    arguments.extend(["--plugin".into(), text(&plugin), "--out".into(), text(&third)]);
    let output = perseq("simulate", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let row = &reports(&third)[0];
    assert_eq!(
        (&row[0], &row[1], &row[4]),
        (&"E01/depth=1/block=0/system".into(), &"ok".into(), &Value::Null),
        "{row}"
    );
    assert!(row[7]["parts"] == serde_json::json!([1, 1]), "{row}");
    assert!(third.join("report/report.html").is_file());
    // The C library does not say where its metadata lies: that is not nothing.
    assert!(row[7]["tiers"].is_null() && row[6].get("caches_accesses_per_pair").is_none(), "{row}");
    assert!(row[8]["tiers"].as_str().is_some_and(|reason| reason.contains("does not say")), "{row}");

    // One thread takes what it gave back last, and the C library writes into what is free: its own CPU touches each line in
    // between. The guest for which nobody asked says nothing of objects.
    let (objects, pairs) = (&row[7]["objects"], row[5].as_u64().expect("a count"));
    let handed_out = objects["handed_out"].as_u64().expect("a count");
    assert!((pairs..=pairs + pairs / 100).contains(&handed_out), "{objects} for {pairs} pairs");
    assert!(row[6]["reuse_distance_p75_lines"].as_f64() < Some(100.0), "{row}");
    assert_eq!(row[6]["touchers_per_object"].as_f64(), Some(1.0), "{row}");
    let report = fs::read_to_string(third.join("report/report.txt")).expect("a report");
    assert!(report.contains("reuse distance, median (lines)"), "{report}");
    assert!(first[0][7]["objects"].is_null() && first[0][6].get("reuse_never_share").is_none(), "{}", first[0]);

    let resumed = resume(&plugin);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    assert_eq!(reports(&dirs[0]), first);
}

/// The tiers of `percpu` in a cell whose pairs its caches serve: what they add up to, and what a pair does there. `pop`
/// loads the slab's id, the list's top and the object, and stores the top; `push` loads id, top and slot and stores both.
fn tiers_are_told_apart(row: &Value) {
    let counts = |value: &Value| value.as_object().expect("counts").clone();
    let tiers = counts(&row[7]["tiers"]);
    for (count, all) in counts(&row[7]["classes"]["user"]["total"]) {
        let sum: u64 = tiers.values().map(|tier| tier[&count].as_u64().expect("a count")).sum();
        assert_eq!(Some(sum), all.as_u64(), "{count}: {tiers:?}");
    }
    let (accesses, pairs) = (tiers["caches"]["accesses"].as_u64(), row[5].as_u64());
    let (accesses, pairs) = (accesses.expect("a count"), pairs.expect("a count"));
    assert!((9 * pairs..10 * pairs).contains(&accesses), "{accesses} for {pairs} pairs: {tiers:?}");
    let per_pair = row[6]["caches_accesses_per_pair"].as_f64();
    assert_eq!(per_pair, Some(accesses as f64 / pairs as f64));
    // The word that says which mode runs is read each time.
    assert!(tiers["shared"]["reads"].as_u64() >= Some(2 * pairs), "{tiers:?}");
    let told = counts(&row[7]["told"]["bytes"]);
    assert!(told.values().all(|bytes| bytes.as_u64() > Some(0)), "{told:?}");
    assert_eq!(told.len() + 1, tiers.len(), "and what is the program's: {tiers:?}");
}

/// Patterns whose distances and touchers are known: last in, first out over a working set of 600 lines; first in, first out
/// over 600 objects; one object between two CPUs.
#[test]
fn planted_patterns_have_the_distances_and_touchers_that_they_must() {
    const DEFINITION: &str = r#"
        id = "planted"
        title = "Objects whose reuse is known"
        question = "Is it found?"
        method = "By a workload that marks objects of its own."
        workload = "known-reuse"
        headline = "ns_per_pair"
        parameters = { turns = 40, objects = 600 }

        [profiles.quick]
        measure_ms = 1
        blocks = 1
        modes = ["system"]
        vary = { pattern = [0, 1, 2] }

        [[metrics]]
        name = "ns_per_pair"
        unit = "ns"
        better = "less-time"
        meaning = "None."

        [[predictions]]
        text = "It is found."
        metric = "ns_per_pair"
        mode = "system"
        at_least = 0.5
        at_most = 2.0
    "#;
    let folder = tempfile::tempdir().expect("a directory");
    let [definition, dir] = ["planted.toml", "run"].map(|name| folder.path().join(name));
    fs::write(&definition, DEFINITION).expect("a definition");
    let (plugin, text) = (library::built("cache-plugin"), |path: &Path| path.to_str().expect("UTF-8").to_owned());
    let mut arguments: Vec<_> = "--cpus 2 --modes system --seeds 1 --objects".split(' ').map(str::to_owned).collect();
    arguments.extend(["--definition".into(), text(&definition), "--out".into(), text(&dir)]);
    arguments.extend(["--plugin".into(), text(&plugin)]);
    let output = perseq("simulate", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    if output.status.code() == Some(3) {
        return absence::not_tested("guest", "objects in simulated machines", stderr(&output).trim());
    }
    let rows = reports(&dir);
    assert_eq!((output.status.code(), rows.len()), (Some(0), 3), "{} {rows:?}", stderr(&output));
    let of = |pattern: u64| {
        let named = format!("pattern={pattern}");
        let row = rows.iter().find(|row| row[0].as_str().is_some_and(|id| id.contains(&named))).expect("a row");
        move |metric: &str| row[6][metric].as_f64().expect("a metric")
    };
    let [stack, queue, between] = [0, 1, 2].map(of);
    // The working set, and what else the thread and the kernel touch meanwhile.
    for pattern in [&stack, &queue] {
        assert!((600.0..700.0).contains(&pattern("reuse_distance_p25_lines")), "{rows:?}");
        assert!((600.0..700.0).contains(&pattern("reuse_distance_p75_lines")), "{rows:?}");
        // An L1 has 512 lines, an L2 8192.
        assert!(pattern("reuse_beyond_l1_share") > 0.9 && pattern("reuse_beyond_l2_share") == 0.0, "{rows:?}");
    }
    let touchers = [stack, queue, between].map(|pattern| pattern("touchers_per_object"));
    assert_eq!(touchers, [0.0, 0.0, 1.0], "{rows:?}");
}

/// Two parts, the second of which another host took up: the bits of the whole, and nobody need be asked about hosts.
#[test]
fn parts_of_a_simulation_are_the_bits_of_the_whole() {
    let folder = tempfile::tempdir().expect("a directory");
    let plugin = library::built("cache-plugin");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let simulate = |more: &str, name: &str| {
        let arguments = "--cpus 2 --geometry zen3 --filter E01/depth=1$ --modes percpu --seeds 2 --measure-ms 20";
        let arguments = format!("{arguments} {more}");
        let mut arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["--plugin".into(), text(&plugin), "--out".into(), text(&folder.path().join(name))]);
        perseq("simulate", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for (more, name) in [("", "whole"), ("--shard 1/2", "1"), ("--shard 2/2", "2")] {
        let output = simulate(more, name);
        if output.status.code() == Some(3) {
            return absence::not_tested("guest", "parts of a simulation", stderr(&output).trim());
        }
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    }
    let [one, two, whole, joined] = ["1", "2", "whole", "joined"].map(|name| folder.path().join(name));
    // As another host would have begun it, and not ended it.
    fs::write(two.join("samples.jsonl"), "").expect("rows");
    forged::manifest(&two, |manifest| {
        manifest["host_caption"] = "another processor".into();
        manifest["part"]["host"] = serde_json::json!({"value": "another boot"});
        (manifest["finished_utc"], manifest["rows"]) = (Value::Null, Value::Null);
    });
    fs::remove_file(two.join("SHA256SUMS")).expect("sums");
    let merge = || perseq("merge", &[&text(&one), &text(&two), "--out", &text(&joined)]);
    assert_eq!(merge().status.code(), Some(2), "it is not finished");
    let resumed = perseq("resume", &[&text(&two), "--plugin", &text(&plugin)]);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    let merged = merge();
    assert_eq!(merged.status.code(), Some(0), "{}", stderr(&merged));
    assert_eq!(reports(&joined).len(), 2);
    assert_eq!(reports(&joined), reports(&whole));
    let report = fs::read_to_string(joined.join("report/report.txt")).expect("a report");
    assert!(!report.contains("ACROSS HOSTS") && report.contains("host 2: another processor"), "{report}");
    // Other files in the guests are another plan.
    forged::manifest(&two, |manifest| manifest["image_sha256"] = "f0".into());
    forged::sums(&two);
    fs::remove_dir_all(&joined).expect("a run");
    let refused = merge();
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("`image_sha256` differs"), "{}", stderr(&refused));
}
