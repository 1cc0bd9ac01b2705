//! `perseq stats` and `perseq top` on real processes: what they say is what the process itself counts, in every mode, and
//! where they cannot say anything they say so in a line.

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
#[path = "kit/library.rs"]
mod library;

use perseq::Mode;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, fs, mem, thread};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// How long anything here may take: a hang is a failure, a busy host is not.
const LIMIT: Duration = Duration::from_secs(60);

fn perseq(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(arguments);
    ended(command)
}

/// Runs a command to its end.
fn ended(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the command starts");
    let id = child.id() as i32;
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(LIMIT) else {
        _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        panic!("{command:?} does not end");
    };
    output.expect("its output")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one line that a command says which cannot do its work.
fn refusal(output: &Output) -> String {
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| (2..=3).contains(&code)), "{}: {line}", output.status);
    assert!(line.starts_with("perseq: ") && line.lines().count() == 1, "{line}");
    assert!(output.stdout.is_empty(), "{}", stdout(output));
    line
}

/// A process that allocates, tells, and waits.
struct Held {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Held {
    fn start(mut command: Command) -> Held {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the process starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            // What the test harness says in a process of ours is none.
            lines.filter(|line| line.starts_with('{')).for_each(|line| drop(sender.send(line)));
        });
        Held { child, input, lines }
    }

    /// The program of `held.c` on libperseq, in this mode.
    fn preloaded(mode: &str, count: usize, size: usize) -> Held {
        let mut command = Command::new(program());
        command.args([count.to_string(), size.to_string()]).env("LD_PRELOAD", libperseq());
        if mode == "hardened" {
            command.env("PERSEQ_HARDENED", "1")
        } else {
            command.env("PERSEQ_MODE", mode)
        };
        Held::start(command)
    }

    /// What it says of itself, once it waits.
    fn told(&self) -> Value {
        let line = self.lines.recv_timeout(LIMIT).expect("the process says a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// As [`Held::told`], of a process that then sleeps.
    fn at_rest(&self) -> Value {
        let (told, begin) = (self.told(), Instant::now());
        let status = || fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("its status");
        while !status().rsplit(") ").next().expect("its state").starts_with('S') {
            assert!(begin.elapsed() < LIMIT, "it does not wait: {}", status());
            thread::sleep(Duration::from_millis(1));
        }
        told
    }

    fn ask(&mut self, step: &[u8]) {
        self.input.as_mut().expect("open").write_all(step).expect("the process reads");
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program of `held.c`.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (draft, program) = (folder.join(format!("held-{}", std::process::id())), folder.join("held"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/held.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&draft).arg(source).args(["-pthread", "-ldl"]);
        assert!(compiler.status().expect("cc starts; .ci/run installs it").success());
        fs::rename(&draft, &program).expect("a name for the program");
        program
    })
}

fn libperseq() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| library::libperseq().canonicalize().expect("it was built"))
}

/// The lines of `perseq stats --json`.
fn looks(id: &str) -> Vec<Value> {
    let output = perseq(&["stats", id, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The one allocator of a process.
fn look(id: &str) -> Value {
    let mut looks = looks(id);
    assert_eq!(looks.len(), 1, "{looks:?}");
    looks.remove(0)
}

/// Objects of a class that the program holds.
fn live(look: &Value, size: u64) -> u64 {
    let class = look["classes"].as_array().expect("classes").iter().find(|class| class["size"] == size);
    class.map_or(0, |class| class["live_objects"].as_u64().expect("a number"))
}

/// What is read is what the process says itself, all of it.
fn same(look: &Value, told: &Value) {
    for part in ["perseq", "process", "total", "caches", "classes"] {
        assert_eq!(look[part], told[part], "{part}");
    }
    assert_eq!(look["exact"], true, "{look}");
}

#[test]
fn a_process_at_rest_is_read_as_it_counts_itself() {
    for mode in Mode::ALL.map(Mode::name).into_iter().chain(["hardened"]) {
        // 3000 bytes are of the class of 3072, in which nothing else is allocated.
        let mut held = Held::preloaded(mode, 3000, 3000);
        let told = held.at_rest();
        let first = look(&held.id());
        same(&first, &told);
        assert_eq!((live(&first, 3072), &first["program"]), (2000, &"held".into()), "{mode}");
        held.ask(b"m");
        let told = held.at_rest();
        let second = look(&held.id());
        same(&second, &told);
        assert_eq!(live(&second, 3072), 4000, "{mode}");
    }
}

/// Not the library but the program itself holds the allocator, and has no name for it.
#[test]
fn a_rust_program_is_read_and_a_second_allocator_beside_it() {
    if env::var_os("PERSEQ_TEST_ROLE").is_some() {
        // Where Yama lets nobody else read it. Not so where there is no Yama, which does no harm.
        // SAFETY: numbers.
        unsafe { nix::libc::prctl(nix::libc::PR_SET_PTRACER, nix::libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        let held: Vec<_> = (0..500).map(|_| vec![1_u8; 3000]).collect();
        let (input, mut byte) = (std::io::stdin(), [1]);
        while byte != [0] {
            let mut out = perseq::FileWriter::new(1);
            let written = out.write_char('\n').and_then(|()| perseq::write_json(&mut out)).and_then(|()| out.flush());
            written.expect("a pipe");
            byte = [0];
            _ = nix::unistd::read(&input, &mut byte);
        }
        drop(held);
        return;
    }
    let own = env::current_exe().expect("this program");
    let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live-stripped-{}", std::process::id()));
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&own).status();
    let programs = match strip {
        Ok(status) => {
            assert!(status.success(), "strip: {status}");
            vec![own, stripped.clone()]
        }
        Err(why) => {
            absence::not_tested("cc", "a program without symbols", format_args!("strip: {why}"));
            vec![own]
        }
    };
    let role = |program: &Path| {
        let mut command = Command::new(program);
        let name = "a_rust_program_is_read_and_a_second_allocator_beside_it";
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("PERSEQ_TEST_ROLE", "held");
        command
    };
    for program in &programs {
        let mut held = Held::start(role(program));
        // The test harness there has a thread too, which may come to rest later.
        let (mut told, mut before, begin) = (held.at_rest(), Value::Null, Instant::now());
        while told != before {
            assert!(begin.elapsed() < LIMIT, "it does not come to rest: {told}");
            held.ask(b"t");
            before = mem::replace(&mut told, held.at_rest());
        }
        let first = look(&held.id());
        same(&first, &told);
        assert!(live(&first, 3072) >= 500, "{first}");
        assert_eq!(first["file"], program.to_str().expect("UTF-8"));
    }
    // Under libperseq the C library's share of the program is the library's.
    let mut command = role(&programs[0]);
    command.env("LD_PRELOAD", libperseq());
    let held = Held::start(command);
    held.at_rest();
    let both = looks(&held.id());
    let files: Vec<_> = both.iter().map(|look| look["file"].as_str().expect("a path")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.contains(&programs[0].to_str().expect("UTF-8")), "{files:?}");
    assert!(files.contains(&libperseq().to_str().expect("UTF-8")), "{files:?}");
    drop(fs::remove_file(stripped));
}

/// While it runs, no number is more than there can be, and nobody waits for anybody.
#[test]
fn a_busy_process_is_read_while_it_runs() {
    for mode in ["percpu", "perthread", "sharded", "central"] {
        let mut held = Held::preloaded(mode, 300, 3000);
        held.told();
        held.ask(b"b");
        held.told();
        let (mut looks, mut ran, begin) = (0, 0, Instant::now());
        while looks < 20 || ran == 0 {
            assert!(begin.elapsed() < LIMIT, "three threads that never stop were not seen to run in {looks} looks");
            looks += 1;
            let look = look(&held.id());
            let total = |name: &str| look["total"][name].as_u64().expect("a number");
            // One tier is read after the other: what moves meanwhile is seen twice, or not at all.
            assert!(live(&look, 3072) >= 100, "{look}");
            assert!(total("held_bytes") <= total("peak_held_bytes") + (1 << 20), "{look}");
            assert!(total("cached_bytes") <= total("capacity_bytes"), "{look}");
            let held = total("small_span_bytes") + total("live_large_bytes");
            assert!(held <= total("committed_bytes") + (4 << 20), "{look}");
            ran += u32::from(look["exact"] == false);
        }
        held.ask(b"e");
        let told = held.at_rest();
        same(&look(&held.id()), &told);
    }
}

#[test]
fn what_cannot_be_read_is_said_in_a_line() {
    let gone = {
        let mut child = Command::new("true").spawn().expect("true starts");
        child.wait().expect("it ends");
        child.id().to_string()
    };
    let mut other = Command::new("sleep").arg("60").spawn().expect("sleep starts");
    let other_id = other.id().to_string();
    let held = Held::preloaded("percpu", 10, 100);
    held.at_rest();
    for command in ["stats", "top", "map"] {
        let line = refusal(&perseq(&[command, &gone]));
        assert!(line.contains(&gone) && line.contains("there is none"), "{line}");
        let line = refusal(&perseq(&[command, &other_id]));
        assert!(line.contains("(sleep)") && line.contains("does not run on perseq"), "{line}");
    }
    for wrong in [&["stats"][..], &["stats", "0"], &["stats", "x"], &["top", "1", "--interval", "0"]] {
        let output = perseq(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    other.kill().expect("our child");
    other.wait().expect("our child");
    // Another user's. A test that is not root has one in the first process.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = folder.path().join("perseq");
    fs::copy(env!("CARGO_BIN_EXE_perseq"), &copy).expect("a copy");
    let (mut command, id) = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
        (command, held.id())
    } else {
        (Command::new(&copy), "1".into())
    };
    command.args(["stats", &id]);
    let line = refusal(&ended(command));
    assert!(line.contains("may not read its memory") && line.contains("ptrace_scope"), "{line}");
    // A process that has ended, but was not waited for.
    let mut zombie = Command::new("true").stdout(Stdio::piped()).spawn().expect("true starts");
    drop(std::io::read_to_string(zombie.stdout.take().expect("piped")));
    let line = refusal(&perseq(&["stats", &zombie.id().to_string()]));
    assert!(line.contains("ended"), "{line}");
    zombie.wait().expect("our child");
}

#[test]
fn top_repeats_itself_and_ends_with_the_process() {
    let mut held = Held::preloaded("percpu", 300, 3000);
    held.told();
    held.ask(b"b");
    held.told();
    let output = perseq(&["top", &held.id(), "--interval", "0.2", "--count", "3"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("each second:").count(), 3, "{text}");
    assert_eq!(text.matches("each second: - misses").count(), 1, "the first look has nothing to compare with: {text}");
    assert!(text.contains(", mode p") && text.contains("\n     3072 ") && !text.contains('\u{1b}'), "{text}");
    let rates = text.lines().filter_map(|line| line.strip_prefix("each second: ")).skip(1);
    let busy = |line: &str| !line.starts_with("0 misses, 0 objects moved");
    assert!(rates.clone().all(busy), "three threads miss now and then: {text}");
    let output = perseq(&["top", &held.id(), "--interval", "0.01", "--count", "4", "--json"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines.windows(2).all(|pair| pair[0]["unix_ms"].as_u64() < pair[1]["unix_ms"].as_u64()), "{lines:?}");
    // A reader that has seen enough ends it.
    let mut shell = Command::new("bash");
    shell.args(["-c", "\"$0\" top \"$1\" --interval 0.01 | head -n 1", env!("CARGO_BIN_EXE_perseq"), &held.id()]);
    assert!(stdout(&ended(shell)).starts_with("process "));
    // It ends with the process, however that ends.
    let mut top = Command::new(env!("CARGO_BIN_EXE_perseq"));
    top.args(["top", &held.id(), "--interval", "0.05", "--json"]);
    let waits = thread::spawn(move || ended(top));
    thread::sleep(Duration::from_millis(300));
    held.child.kill().expect("our child");
    held.child.wait().expect("our child");
    let output = waits.join().expect("no panic");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{line}");
    assert!(line.contains("ended") && line.lines().count() == 1, "{line}");
}

/// Every line is one of the format's, a family's samples stand together, and the numbers are those of the JSON.
#[test]
fn metrics_are_what_prometheus_reads() {
    let held = Held::preloaded("percpu", 3000, 3000);
    let told = held.at_rest();
    let output = perseq(&["stats", &held.id(), "--prometheus"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = stdout(&output);
    let sample =
        regex::Regex::new(r#"^([a-z][a-z0-9_]*)\{([a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*)\} (\d+)$"#);
    let (sample, mut family, mut seen) = (sample.expect("a pattern"), String::new(), std::collections::BTreeSet::new());
    let mut values = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').expect("a name and what it is");
            assert!(seen.insert(name.to_owned()) && !help.is_empty(), "{line}");
            family = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let counts = family.ends_with("_total");
            assert_eq!(kind, format!("{family} {}", if counts { "counter" } else { "gauge" }), "{line}");
        } else {
            let found = sample.captures(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(found[1], family, "{line}");
            values.insert(line.rsplit_once(' ').expect("a value").0.to_owned(), found[3].to_owned());
        }
    }
    let own = format!("process=\"{}\",program=\"held\"", held.id());
    let value = |name: &str, more: &str| {
        let begin = format!("{name}{{{own},");
        let mut found = values.iter().filter(|(key, _)| key.starts_with(&begin) && key.contains(more));
        let (first, more) = (found.next(), found.next());
        assert!(more.is_none(), "{name}: {more:?}");
        first.unwrap_or_else(|| panic!("{name} is not in {text}")).1.clone()
    };
    assert_eq!(value("perseq_held_bytes", ""), told["total"]["held_bytes"].to_string());
    assert_eq!(value("perseq_underflows_total", ""), told["total"]["underflows"].to_string());
    assert_eq!(value("perseq_class_live_objects", "size=\"3072\""), "2000");
    assert_eq!(value("perseq_info", &format!(",mode={}", told["total"]["mode"])), "1");
    assert!(
        value("perseq_cache_cached_bytes", &format!("owner={}", told["caches"][0]["owner"])).parse::<u64>().is_ok()
    );
    // Text for people has the same.
    let text = stdout(&perseq(&["stats", &held.id()]));
    let line = text.lines().find(|line| line.starts_with("held_bytes ")).expect("a line");
    assert_eq!(line.split_whitespace().nth(1), Some(told["total"]["held_bytes"].to_string().as_str()));
    assert!(
        text.lines().any(|line| line.split_whitespace().eq(["exact", "yes"])) && text.contains("\ncache "),
        "{text}"
    );
}

/// The map has the spans that the process counts, each in the column of what is taken of it.
#[test]
fn a_map_has_every_span() {
    let held = Held::preloaded("percpu", 3000, 3000);
    let told = held.at_rest();
    let output = perseq(&["map", &held.id()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = stdout(&output);
    let (map, table) = text.split_once("\n\n    class ").map_or_else(|| panic!("{text}"), |(map, table)| (map, table));
    let rows: Vec<Vec<u64>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().map(|number| number.parse().expect("a number")).collect())
        .collect();
    for class in told["classes"].as_array().expect("classes").iter().filter(|class| class["spans"] != 0) {
        let row = rows.iter().find(|row| class["size"] == row[0]).unwrap_or_else(|| panic!("{class}: {text}"));
        assert_eq!((&class["spans"], row[1]), (&row[1].into(), row[2..].iter().sum()), "{class}: {text}");
    }
    let small = told["total"]["small_span_bytes"].as_u64().expect("a number") as f64 / f64::from(1 << 20);
    assert!(map.contains(&format!("\nsmall {small:.1} MiB, large ")), "{small}: {text}");
    assert!(map.lines().filter(|line| line.ends_with('|')).count() > 1 && map.contains('█'), "{text}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("heap.svg");
    let output = perseq(&["map", &held.id(), "--svg", file.to_str().expect("UTF-8")]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = fs::read_to_string(&file).expect("a figure");
    let spans = svg.matches(" KiB of objects of 3072 bytes: ").count() as u64;
    // One that crosses the end of a huge page is drawn in two lines.
    assert!(spans >= rows.iter().find(|row| row[0] == 3072).expect("a row")[1], "{svg}");
    let line = refusal(&perseq(&["map", &held.id(), "--svg", "/nonexistent/heap.svg"]));
    assert!(line.contains("/nonexistent/heap.svg: cannot write"), "{line}");
}
