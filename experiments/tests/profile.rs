//! `perseq profile` on real programs: functions that allocate known bytes come out with their names and their bytes, for a
//! reader that is not ours as well, and where there is no profile a line says so.

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
#[path = "kit/library.rs"]
mod library;

use absence::is_installed;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Bytes from one sample to the next.
const RATE: f64 = 8192.0;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn libperseq() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(library::libperseq)
}

/// The program of `sites.cpp`, or of the C file that the allocator's own tests profile.
fn program(source: &str, arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let is_cpp = source.extension().is_some_and(|ending| ending == "cpp");
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
    // Of this call alone: a profile names the file that it was taken of.
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("planted-{stem}-{number}");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compiler = Command::new(if is_cpp { "g++" } else { "cc" });
    compiler.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id", "-pthread", "-o"]).arg(&program);
    compiler.arg(&source).args(arguments).arg("-ldl");
    assert!(compiler.status().expect("a compiler; .ci/run installs it").success());
    program
}

/// `perseq profile` with these options, of this program.
fn profile(out: &Path, options: &[&str], program: &[&str]) -> Output {
    profile_on(libperseq(), out, options, program)
}

fn profile_on(library: &Path, out: &Path, options: &[&str], program: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(["profile", "--every", "8K", "--out"]).arg(out).arg("--libperseq").arg(library);
    command.args(options).arg("--").args(program);
    command.output().expect("perseq starts")
}

fn perseq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perseq")).args(arguments).output().expect("perseq starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// What was printed, of a command that ended so.
fn ended(output: Output, code: i32) -> Output {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", stdout(&output), stderr(&output));
    output
}

/// Bytes as a table has them.
fn bytes(number: &str, unit: &str) -> f64 {
    let scale = ["B", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit).expect("a unit");
    number.replace('\u{202f}', "").parse::<f64>().expect("a number") * 1024_f64.powi(scale as i32)
}

/// Bytes in use and allocated in a function of the table, without those of functions that it called.
fn of_function(table: &str, function: &str) -> [f64; 2] {
    let line = table.lines().find(|line| line.ends_with(&format!("  {function}")));
    let words: Vec<_> = line.unwrap_or_else(|| panic!("no {function}:\n{table}")).split_whitespace().collect();
    // BYTES UNIT +- UNIT % CALLS UNIT ALLOCATED UNIT % CALLS UNIT NAME
    [bytes(words[0], words[1]), bytes(words[7], words[8])]
}

/// Asserts that the bytes are those of so many blocks as far as samples say: six deviations are passed once in 500 million
/// times, and three digits are printed.
fn likely(what: &str, found: f64, size: f64, blocks: f64) {
    let p = 1.0 - (-size / RATE).exp();
    let deviation = (blocks * (1.0 - p) / p).sqrt() * size;
    let expected = blocks * size;
    assert!(
        (found - expected).abs() <= 6.0 * deviation + 0.005 * expected,
        "{what}: {found}, expected {expected} +- {deviation}"
    );
}

/// `go tool pprof` on a profile.
fn go_pprof(arguments: &[&str], file: &Path) -> String {
    let home = folder();
    let mut command = Command::new("go");
    command.args(["tool", "pprof"]).args(arguments).arg(file).env("HOME", home.path());
    command.env("PPROF_TMPDIR", home.path());
    stdout(&ended(command.output().expect("go starts"), 0))
}

/// Bytes of a block, blocks allocated, blocks kept.
type Planted = (f64, f64, f64);

/// What the C program allocates where: as much of each as it says of each size.
const PLANTED: [(&str, &[Planted]); 4] = [
    (
        "by_malloc",
        &[
            (1024.0, 20_000.0, 15_000.0),
            (1792.0, 6000.0, 0.0),
            (2560.0, 6000.0, 0.0),
            (3072.0, 9000.0, 3000.0),
            (49_152.0, 1000.0, 0.0),
        ],
    ),
    ("by_calloc", &[(1280.0, 6000.0, 6000.0), (40_960.0, 1000.0, 1000.0)]),
    ("by_memalign", &[(1536.0, 6000.0, 0.0), (73_728.0, 1000.0, 0.0)]),
    ("by_realloc", &[(2048.0, 6000.0, 0.0), (768.0, 6000.0, 6000.0), (57_344.0, 1000.0, 1000.0)]),
];

/// Asserts that a function has in use and allocated what it planted.
fn as_planted(function: &str, sites: &[Planted], [in_use, allocated]: [f64; 2]) {
    for (what, found, kept_only) in [("in use", in_use, true), ("allocated", allocated, false)] {
        // As one size whose blocks vary as all of these do together.
        let (mut expected, mut variance) = (0.0, 0.0);
        for (size, all, kept) in sites {
            let (blocks, p) = (if kept_only { kept } else { all }, 1.0 - (-size / RATE).exp());
            expected += blocks * size;
            variance += blocks * (1.0 - p) / p * size * size;
        }
        assert!(
            (found - expected).abs() <= 6.0 * f64::sqrt(variance) + 0.005 * expected,
            "{function}, {what}: {found}, expected {expected} +- {}",
            variance.sqrt()
        );
    }
}

#[test]
fn planted_functions_come_out_with_their_bytes() {
    let folder = folder();
    let (out, program) = (folder.path().join("out"), program("../preload/tests/profile.c", &[]));
    let output = ended(profile(&out, &[], &[text(&program), "plant"]), 0);
    // What the program says stays its own.
    assert!(stdout(&output).starts_with("1024 20000 15000\n") && !stdout(&output).contains("in use"));
    let table = stderr(&output);
    assert!(table.contains("1 process, "), "{table}");
    for (function, sites) in PLANTED {
        as_planted(function, sites, of_function(&table, function));
    }
    // It calls all of them but for what threads do.
    assert!(table.lines().any(|line| line.ends_with("  plant")), "{table}");
    let again = stdout(&ended(perseq(&["profile", "show", text(&out)]), 0));
    assert!(table.ends_with(&again) && again.starts_with("in use: "), "{again}");
}

#[test]
fn go_reads_the_profile() {
    if !is_installed("go", "a reader of profiles that is not ours") {
        return;
    }
    let folder = folder();
    let (out, program) = (folder.path().join("out"), program("../preload/tests/profile.c", &[]));
    ended(profile(&out, &[], &[text(&program), "plant"]), 0);
    let file = out.join("heap.pb.gz");
    // It leaves out who has nothing.
    let bytes_of = |table: &str, function: &str| {
        let Some(line) = table.lines().find(|line| line.ends_with(&format!("  {function}"))) else { return 0.0 };
        let flat = line.split_whitespace().next().and_then(|flat| flat.trim_end_matches('B').parse::<f64>().ok());
        flat.expect("bytes")
    };
    let table = |kind: &str| go_pprof(&["-top", "-unit=B", "-nodefraction=0", &format!("-sample_index={kind}")], &file);
    let (in_use, allocated) = (table("inuse_space"), table("alloc_space"));
    for (function, sites) in PLANTED {
        as_planted(function, sites, [bytes_of(&in_use, function), bytes_of(&allocated, function)]);
    }
    let blocks = go_pprof(&["-top", "-nodefraction=0", "-sample_index=inuse_objects"], &file);
    likely("blocks of by_calloc", bytes_of(&blocks, "by_calloc"), 1.0, 7000.0);

    // Where each function is, and of which file, which has the same id for those who made it.
    let raw = go_pprof(&["-raw"], &file);
    assert!(raw.contains("inuse_objects/count inuse_space/bytes[dflt] alloc_objects/count alloc_space/bytes"), "{raw}");
    assert!(raw.contains("Period: 8192\n") && raw.contains("bytes:[40960 bytes]"), "{raw}");
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../preload/tests/profile.c"));
    let source = source.expect("a source file");
    let line = source.lines().position(|line| line.contains("good(malloc(size), size, 16)")).expect("that line") + 1;
    assert!(
        raw.lines().any(|text| text.contains(" by_malloc /") && text.contains(&format!("profile.c:{line} "))),
        "{raw}"
    );
    let notes = Command::new("readelf").arg("-n").arg(&program).output().expect("readelf comes with the compiler");
    let notes = stdout(&notes);
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("an id");
    let name = program.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(raw.lines().any(|line| line.contains(&format!("/{name} {id}"))), "{id}: {raw}");
}

#[test]
fn what_is_kept_is_told_with_its_stacks_and_what_changed_as_well() {
    let folder = folder();
    let program = program("tests/profile/sites.cpp", &[]);
    let run = |name: &str, kept: [&str; 2]| {
        let out = folder.path().join(name);
        (stderr(&ended(profile(&out, &["--leaks"], &[text(&program), "3", kept[0], kept[1]]), 3)), out)
    };
    let (text_of_first, first) = run("first", ["2000", "6000"]);
    let (_, second) = run("second", ["6000", "2000"]);
    let (_, same) = run("same", ["2000", "6000"]);
    // The functions that did it come first, by the names of C++, and who was inlined by its own.
    let stacks: Vec<_> = text_of_first.split("\n\n").filter(|part| part.contains(" in use, of ")).collect();
    let of = |function: &str| {
        let found = stacks.iter().find(|stack| stack.lines().nth(1).is_some_and(|line| line.contains(function)));
        *found.unwrap_or_else(|| panic!("{function}: {text_of_first}"))
    };
    for (function, size, kept) in
        [("planted::by_new(int)  ", 2048.0, 2000.0), ("planted::inlined(int)  ", 1280.0, 6000.0)]
    {
        let stack = of(function);
        let words: Vec<_> = stack.split_whitespace().collect();
        likely(function, bytes(words[0], words[1]), size, kept);
        assert!(stack.contains("    main  profile/sites.cpp:"), "{stack}");
    }
    assert!(of("planted::inlined(int)").contains("planted::by_malloc(int)  profile/sites.cpp:"), "{text_of_first}");

    let changes = stdout(&ended(perseq(&["profile", "diff", text(&first), text(&second)]), 0));
    for (verdict, function) in [("grew: in use +", "planted::by_new"), ("shrank: in use -", "planted::inlined")] {
        let part = changes.split("\n\n").find(|part| part.lines().nth(1).is_some_and(|line| line.contains(function)));
        assert!(part.unwrap_or_else(|| panic!("{function}: {changes}")).starts_with(verdict), "{changes}");
    }
    // One profile is itself, whatever was sampled.
    let none = stdout(&ended(perseq(&["profile", "diff", text(&first), text(&first.join("heap.pb.gz"))]), 0));
    assert!(none.starts_with("in use: unclear from ") && !none.contains("grew") && !none.contains("shrank"), "{none}");
    // Each of few stacks changes clearly by chance one time in twenty: all of them together hardly do.
    let chance = stdout(&ended(perseq(&["profile", "diff", text(&first), text(&same)]), 0));
    assert!(chance.matches("grew: ").count() + chance.matches("shrank: ").count() < 4, "{chance}");
}

#[test]
fn every_process_is_in_the_profile() {
    let folder = folder();
    let program = program("tests/profile/sites.cpp", &[]);
    let out = folder.path().join("out");
    let script = "\"$0\" 0 1000 0; \"$0\" 0 0 3000; exit 7";
    let output = ended(profile(&out, &["--top", "1000"], &["bash", "-c", script, text(&program)]), 7);
    let table = stderr(&output);
    assert!(table.contains("3 processes, "), "{table}");
    likely("by_new", of_function(&table, "planted::by_new(int)")[0], 2048.0, 1000.0);
    likely("inlined", of_function(&table, "planted::inlined(int)")[1], 1280.0, 6000.0);
    let of_processes = fs::read_dir(&out)
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".heap"));
    assert_eq!(of_processes.count(), 3);
}

/// Where, by whom and after how long blocks were freed, as the program did it.
#[test]
fn frees_on_another_cpu_and_by_another_thread_are_told() {
    let folder = folder();
    let (out, program) = (folder.path().join("out"), program("../preload/tests/profile.c", &[]));
    let output = ended(profile(&out, &[], &[text(&program), "fates"]), 0);
    let said = stdout(&output);
    if said.contains("one CPU") {
        return absence::not_tested("second-cpu", "frees on another CPU", "one CPU only");
    }
    // Bytes that were freed, and of them those of each kind.
    let (mut all, mut kinds, mut variance) = (0.0, [0.0; 2], 0.0);
    for line in said.lines().filter_map(|line| line.strip_prefix("fate ")) {
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [size, blocks, cpu, thread] = numbers[..] else { panic!("{line}") };
        let p = 1.0 - (-size / RATE).exp();
        all += size * blocks;
        variance += blocks * (1.0 - p) / p * size * size;
        kinds.iter_mut().zip([cpu, thread]).for_each(|(sum, count)| *sum += size * count);
    }
    let table = stderr(&output);
    let line = table.lines().find(|line| line.ends_with("  by_malloc")).unwrap_or_else(|| panic!("{table}"));
    let words: Vec<_> = line.split_whitespace().collect();
    // As in `of_function`; then CPU % THREAD % LIVED UNIT.
    for (word, expected) in [(words[12], kinds[0]), (words[14], kinds[1])] {
        let (share, expected) = (word.parse::<f64>().expect("a share") / 100.0, expected / all);
        assert!(
            (share - expected).abs() < 6.0 * variance.sqrt() / all + 0.0005,
            "{share}, expected {expected}: {table}"
        );
    }
    assert!(words[16].starts_with('<') && ["us", "ms", "s"].contains(&words[17]), "{line}");
    assert!(table.contains("were freed on another CPU than allocated, ") && table.contains("; half lived less than "));

    if !is_installed("go", "a reader of profiles that is not ours") {
        return;
    }
    let file = out.join("heap.pb.gz");
    let total = |arguments: &[&str]| {
        let top = go_pprof(&[&["-top", "-unit=B", "-nodefraction=0"], arguments].concat(), &file);
        let line = top.lines().find(|line| line.ends_with("  by_malloc")).unwrap_or_else(|| panic!("{top}"));
        line.split_whitespace().next().and_then(|flat| flat.trim_end_matches('B').parse::<f64>().ok()).expect("bytes")
    };
    for (name, expected) in
        [("freed_space", all), ("freed_on_other_cpu_space", kinds[0]), ("freed_by_other_thread_space", kinds[1])]
    {
        let found = total(&[&format!("-sample_index={name}")]);
        assert!((found - expected).abs() < 6.0 * variance.sqrt(), "{name}: {found}, expected {expected}");
    }
    // One block was kept for 20 ms, others perhaps, and none for ten seconds.
    let old = total(&["-sample_index=freed_space", "-tagfocus=lifetime=10ms:10s"]);
    assert!(old >= 262_144.0, "{old}");
}

/// On which CPU and by which thread what is in use was allocated, as the program did it: for a reader that is not ours.
#[test]
fn what_is_in_use_has_labels_of_where_it_was_allocated() {
    if !is_installed("go", "labels, by a reader of profiles that is not ours") {
        return;
    }
    let folder = folder();
    let (out, program) = (folder.path().join("out"), program("../preload/tests/profile.c", &[]));
    let said = stdout(&ended(profile(&out, &[], &[text(&program), "places"]), 0));
    if said.contains("one CPU") {
        return absence::not_tested("second-cpu", "labels of two CPUs", "one CPU only");
    }
    let places: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("place ")).collect();
    let places: Vec<Vec<f64>> =
        places.iter().map(|line| line.split(' ').map(|number| number.parse().expect("a number")).collect()).collect();
    assert_eq!(places.len(), 4, "{said}");
    let file = out.join("heap.pb.gz");
    let in_use = |focus: &[String]| {
        let arguments = ["-top", "-unit=B", "-nodefraction=0", "-sample_index=inuse_space"].map(str::to_owned);
        let arguments: Vec<_> = arguments.iter().chain(focus).map(String::as_str).collect();
        let top = go_pprof(&arguments, &file);
        let line = top.lines().find(|line| line.ends_with("  by_malloc")).unwrap_or_else(|| panic!("{top}"));
        line.split_whitespace().next().and_then(|flat| flat.trim_end_matches('B').parse::<f64>().ok()).expect("bytes")
    };
    let as_planted = |focus: &[String], mine: &dyn Fn(&[f64]) -> bool| {
        let (mut expected, mut variance) = (0.0, 0.0);
        for place in places.iter().filter(|place| mine(place)) {
            let (size, blocks) = (place[2], place[3]);
            let p = 1.0 - (-size / RATE).exp();
            expected += size * blocks;
            variance += blocks * (1.0 - p) / p * size * size;
        }
        let (found, deviation) = (in_use(focus), f64::sqrt(variance));
        assert!((found - expected).abs() <= 6.0 * deviation, "{focus:?}: {found}, expected {expected} +- {deviation}");
    };
    let [first, .., second] = &places[..] else { panic!("{said}") };
    let (cpus, of_cpu) = ([first[0], second[0]], |cpu: f64| format!("cpu=^{cpu}$"));
    assert_ne!(cpus[0], cpus[1], "{said}");
    for cpu in cpus {
        as_planted(&[format!("-tagfocus={}", of_cpu(cpu))], &|place| place[0] == cpu);
    }
    for thread in places[..3].iter().map(|place| place[1]) {
        let focus = format!("-tagfocus=thread=^{thread}$");
        as_planted(std::slice::from_ref(&focus), &|place| place[1] == thread);
        // The last one allocated on both.
        if thread == second[1] {
            let ignore = format!("-tagignore={}", of_cpu(cpus[0]));
            as_planted(&[focus, ignore], &|place| place[1] == thread && place[0] == cpus[1]);
        }
    }
    // All that is in use has labels.
    let (all, labelled) = (in_use(&[]), in_use(&["-tagfocus=thread=.".to_owned()]));
    assert_eq!(all, labelled);
}

/// What is read of a process while it waits is what it writes at its end.
#[test]
fn a_running_process_is_read_as_it_writes_itself() {
    let folder = folder();
    let program = program("../preload/tests/profile.c", &[]);
    let [at_end, running] = ["end", "running"].map(|name| folder.path().join(name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(["profile", "--every", "8K", "--out"]).arg(&at_end).arg("--libperseq").arg(libperseq());
    command.arg("--").arg(&program).arg("wait").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("perseq starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let pid = output.find_map(|line| line.strip_prefix("pid ").map(str::to_owned)).expect("its number");
    let live = perseq(&["profile", "live", &pid, "--top", "1000", "--out", text(&running)]);
    drop(child.stdin.take());
    let table = stderr(&ended(child.wait_with_output().expect("its output"), 0));
    let live = stdout(&ended(live, 0));
    for (function, sites) in PLANTED {
        as_planted(function, sites, of_function(&live, function));
        assert_eq!(of_function(&live, function), of_function(&table, function), "{function}:\n{live}\n{table}");
    }
    // Their labels as well.
    if is_installed("go", "labels of a running process, by a reader of profiles that is not ours") {
        let tags = |out: &Path| go_pprof(&["-tags", "-unit=B", "-sample_index=inuse_space"], &out.join("heap.pb.gz"));
        assert!(tags(&running).contains(" thread: Total "), "{}", tags(&running));
        assert_eq!(tags(&running), tags(&at_end));
    }
    let shown = stdout(&ended(perseq(&["profile", "show", text(&running), "--top", "1000"]), 0));
    assert_eq!(shown, live);
    // Whoever takes none, is none or is not on perseq is told so.
    let line = refusal(perseq(&["profile", "live", &std::process::id().to_string()]), 2);
    assert!(line.contains(": it takes no profile: "), "{line}");
    let line = refusal(perseq(&["profile", "live", &pid]), 2);
    assert!(line.contains(&format!("process {pid}: there is none")), "{line}");
}

#[inline(never)]
fn by_a_vector() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3072);
    bytes.push(1);
    std::hint::black_box(bytes)
}

/// A Rust program on perseq has two allocators of ours under libperseq, and what both served is in the profile.
#[test]
fn what_a_rust_program_allocates_from_perseq_is_in_the_profile() {
    const ROLE: &str = "PERSEQ_TEST_PLANTS";
    const BLOCKS: usize = 4000;
    if std::env::var_os(ROLE).is_some() {
        let kept: Vec<_> = (0..BLOCKS).map(|_| by_a_vector()).collect();
        std::mem::forget(std::hint::black_box(kept));
        // What the C library allocates is of the other.
        std::mem::forget((0..500).map(|_| fs::read_dir("/").expect("a folder")).collect::<Vec<_>>());
        return;
    }
    let folder = folder();
    let out = folder.path().join("out");
    let own = std::env::current_exe().expect("this program");
    let test = "what_a_rust_program_allocates_from_perseq_is_in_the_profile";
    let program = ["env", &format!("{ROLE}=1"), text(&own), "--exact", test];
    let table = stderr(&ended(profile(&out, &["--top", "1000"], &program), 0));
    likely("by_a_vector", of_function(&table, "profile::by_a_vector")[0], 3072.0, BLOCKS as f64);
    assert!(table.contains("  std::fs::read_dir"), "{table}");
    let names = fs::read_dir(&out).expect("a folder").flatten().map(|entry| entry.file_name().into_string());
    let names: Vec<_> = names.map(|name| name.expect("UTF-8")).filter(|name| name.ends_with(".heap")).collect();
    assert!(names.iter().any(|name| name.ends_with(".2.heap")), "{names:?}");
    assert!(table.contains("1 process, "), "{table}");
}

/// The one line that says why nothing came of it.
fn refusal(output: Output, code: i32) -> String {
    let output = ended(output, code);
    let line = stderr(&output);
    assert!(line.starts_with("perseq: ") && line.lines().count() == 1, "{line}");
    line
}

#[test]
fn where_there_is_no_profile_a_line_says_so() {
    let folder = folder();
    let out = folder.path().join("out");
    let dynamic = program("tests/profile/sites.cpp", &[]);
    let still = program("tests/profile/sites.cpp", &["-static"]);
    for (program, how, said) in [
        (&still, "0", "exit status: 0, and no profile came of it: is it linked statically"),
        (&dynamic, "_exit", "exit status: 0, and no profile came of it"),
        (&dynamic, "abort", "signal: 6"),
    ] {
        let line = refusal(profile(&out, &[], &[text(program), how, "10", "10"]), 2);
        assert!(line.contains(said) && line.contains(text(program)), "{said}: {line}");
        assert!(!out.exists(), "an empty folder is left of {how}");
    }
    let line = refusal(profile(&out, &[], &["/nonexistent/program"]), 2);
    assert!(line.contains("/nonexistent/program: cannot start: "), "{line}");
    assert!(!out.exists());
    let line = refusal(profile_on(Path::new("/nonexistent.so"), &out, &[], &["true"]), 2);
    assert!(line.contains("--libperseq"), "{line}");

    fs::create_dir(&out).expect("a folder");
    fs::write(out.join("kept"), "").expect("a file");
    let line = refusal(profile(&out, &[], &["true"]), 2);
    assert!(line.contains("exists and is not empty"), "{line}");
    let line = refusal(profile(Path::new("/proc/none/out"), &[], &["true"]), 3);
    assert!(line.contains("/proc/none/out: cannot create: "), "{line}");
    for (arguments, said) in [
        (&["profile", "show", text(&out)][..], "heap.pb.gz: cannot read: "),
        (&["profile", "diff", text(&out.join("kept")), "/"], "no profile of pprof's"),
    ] {
        let line = refusal(perseq(arguments), 2);
        assert!(line.contains(said), "{line}");
    }
    for arguments in [&["profile"][..], &["profile", "--every", "1K", "--", "true"], &["profile", "--", ""]] {
        let output = ended(perseq(arguments), 2);
        assert!(!stderr(&output).is_empty() && !stderr(&output).contains("panicked"), "{arguments:?}");
    }
}
