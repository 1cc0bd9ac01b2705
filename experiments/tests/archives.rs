//! Directories of all four kinds of run: every change to their files is refused in one line, or accepted and marked;
//! what an interrupted run left is completed.

#[path = "kit/forged.rs"]
mod forged;
#[path = "kit/plain.rs"]
mod plain;

use forged::sum;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A kind of run: its name, the command that makes one, and what `resume` needs beside the directory.
struct Kind {
    name: &'static str,
    command: &'static str,
    resume: &'static str,
    /// The field that names what is measured.
    subject: &'static str,
    /// Files that are made of the rows.
    made: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "run",
        command: "run --filter E01/depth=1$ --modes percpu,perthread --blocks 2 --measure-ms 5 --seed 5",
        resume: "",
        subject: "mode_requested",
        made: &["report/report.html", "report/report.md", "report/summary.csv", "report/figures/forest.svg"],
    },
    Kind {
        name: "suite",
        command: "suite --only system,plain --allocator plain=libplain.so --filter ^glibc-simple$ --percent 1 --blocks 2",
        resume: "--allocator plain=libplain.so",
        subject: "allocator",
        made: &["report/report.html", "report/report.md", "report/summary.csv"],
    },
    Kind {
        name: "programs",
        command: "programs --only bash --modes none --allocator plain=libplain.so --rounds 2",
        resume: "--allocator plain=libplain.so",
        subject: "allocator",
        made: &["table.txt"],
    },
    Kind {
        name: "replay",
        command: "trace replay made.trace --modes percpu,perthread --blocks 2 --measure-ms 5",
        resume: "--trace made.trace",
        subject: "mode_requested",
        made: &["table.txt"],
    },
];

/// Runs perseq, and ends it if it does not end by itself.
fn perseq(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "600", env!("CARGO_BIN_EXE_perseq")])
        .args(arguments.split(' ').filter(|word| !word.is_empty()));
    // Peers built by the user play no part.
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).output().expect("perseq starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(output: &Output, what: &str) {
    assert_eq!(output.status.code(), Some(0), "{what}: {}", stderr(output));
}

/// A folder with an allocator, a trace and a finished run of each kind.
fn workshop(kinds: &[&Kind]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    plain::build(folder.path());
    good(&perseq(folder.path(), "trace synthesize server made.trace --threads 2 --events 400"), "a trace");
    for kind in kinds {
        good(&perseq(folder.path(), &format!("{} --out {}", kind.command, kind.name)), kind.name);
    }
    folder
}

/// A copy of a run, to be changed.
struct Copy<'a> {
    workshop: &'a Path,
    name: String,
}

impl Copy<'_> {
    fn of<'a>(workshop: &'a Path, kind: &Kind) -> Copy<'a> {
        let copy = Copy { workshop, name: format!("{}-copy", kind.name) };
        drop(fs::remove_dir_all(copy.root()));
        copy_folder(&workshop.join(kind.name), &copy.root());
        copy
    }

    fn root(&self) -> PathBuf {
        self.workshop.join(&self.name)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root().join(file)).expect("a file of the run")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root().join(file), text).expect("a file of the run");
    }

    fn lines(&self) -> Vec<String> {
        self.read("samples.jsonl").lines().map(str::to_owned).collect()
    }

    fn set_lines(&self, lines: &[String]) {
        self.write("samples.jsonl", &(lines.join("\n") + "\n"));
    }

    /// Makes every sum right again.
    fn renew(&self) {
        forged::everything(&self.root());
    }

    /// Every file below it that was made of the rows, as `report` leaves them.
    fn all_made(&self, kind: &Kind) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.root().join("report")]);
        if kind.made == ["table.txt"] {
            return vec![self.root().join("table.txt")];
        }
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a report").flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }

    /// Every command that reads the directory refuses it, with one line that says this and nothing written.
    fn refused(&self, kind: &Kind, what: &str, expected: &str) {
        let before = self.made(kind);
        let own = match kind.name {
            "suite" | "programs" => format!("{} --report {}", kind.name, self.name),
            _ => format!("compare {0} {0}", self.name),
        };
        let mut commands = vec![format!("report {}", self.name), format!("rows {}", self.name)];
        commands.extend((kind.name != "replay").then_some(own));
        for command in commands {
            let output = perseq(self.workshop, &command);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{}, {what}: {command}: {said}", kind.name);
            assert!(said.contains(expected), "{}, {what}: {command}: {said}", kind.name);
            assert_eq!(said.lines().count(), 1, "{}, {what}: {command}: {said}", kind.name);
            assert!(output.stdout.is_empty(), "{}, {what}: {command}", kind.name);
        }
        assert!(self.made(kind) == before, "{}, {what}: nothing is written", kind.name);
    }

    /// Asked to, `report` reads it and marks what it writes.
    fn accepted(&self, kind: &Kind, what: &str) {
        let output = perseq(self.workshop, &format!("report {} --accept-changed", self.name));
        good(&output, &format!("{}, {what}", kind.name));
        assert!(stderr(&output).starts_with("warning: "), "{}", stderr(&output));
        let made = self.all_made(kind);
        assert!(made.len() >= kind.made.len(), "{}: {made:?}", kind.name);
        for path in made {
            let text = fs::read_to_string(&path).expect("a file of the report");
            assert!(text.contains("CHANGED FILES"), "{}, {what}: {} is not marked", kind.name, path.display());
        }
    }

    fn made(&self, kind: &Kind) -> Vec<Option<Vec<u8>>> {
        kind.made.iter().map(|name| fs::read(self.root().join(name)).ok()).collect()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a run").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file of the run");
        }
    }
}

fn compress(program: &str, root: &Path) {
    let mut command = Command::new(program);
    let done = command.args(["-q", "-f", "samples.jsonl"]).current_dir(root).status().expect("the program starts");
    assert!(done.success());
    drop(fs::remove_file(root.join("samples.jsonl"))); // zstd leaves it
}

fn change(line: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut row: Value = serde_json::from_str(line).expect("a row");
    change(&mut row);
    row.to_string()
}

#[test]
fn every_change_to_the_files_of_every_kind_of_run_is_refused() {
    let kinds: Vec<_> = KINDS.iter().collect();
    let workshop = workshop(&kinds);
    for kind in &kinds {
        // As it is, it is read; what is made of it is not marked, and is the same each time.
        let copy = Copy::of(workshop.path(), kind);
        let before = copy.made(kind);
        good(&perseq(workshop.path(), &format!("report {}", copy.name)), kind.name);
        assert!(copy.made(kind) == before, "{}: the same rows, the same bytes", kind.name);
        // Everything that was made names the rows it was made of, in its first lines or in a column of its own.
        let root = sum(copy.lines().last().expect("a row").as_bytes());
        for path in copy.all_made(kind) {
            let text = fs::read_to_string(&path).expect("a file of the report");
            let ending = path.extension().and_then(|ending| ending.to_str()).expect("an ending");
            let traced = match ending {
                "csv" => text.lines().skip(1).all(|line| line.ends_with(&format!(",{}", &root[..16]))),
                "svg" => text.contains(&root),
                "html" => text.split_once("</h1>").is_some_and(|(_, rest)| rest[..400].contains(&root)),
                _ => text.lines().take(3).any(|line| line.contains(&root)),
            };
            assert!(traced, "{}: {} does not name {root}", kind.name, path.display());
        }
        copy.renew();
        good(&perseq(workshop.path(), &format!("report {}", copy.name)), "sums that are renewed without a change");

        type Change<'a> = (&'a str, &'a str, Box<dyn Fn(&mut Vec<String>) + 'a>);
        let subject = kind.subject;
        let swap = move |lines: &mut Vec<String>| {
            // Two rows of different subjects change places, but for their names.
            let name = |line: &str| serde_json::from_str::<Value>(line).expect("a row")[subject].clone();
            let other = (1..lines.len()).find(|at| name(&lines[*at]) != name(&lines[0])).expect("two subjects");
            let (a, b) = (name(&lines[0]), name(&lines[other]));
            lines[0] = change(&lines[0], |row| row[subject] = b);
            lines[other] = change(&lines[other], |row| row[subject] = a);
        };
        // What no sum can show, because all are renewed.
        let said: [Change; 8] = [
            ("swapped modes", "is not what was planned", Box::new(swap)),
            ("a row twice", "stands where the plan has", Box::new(|lines| lines.insert(1, lines[0].clone()))),
            ("the first row deleted", "stands where the plan has", Box::new(|lines| drop(lines.remove(0)))),
            ("the last row deleted", "samples have no row", Box::new(|lines| drop(lines.pop()))),
            (
                "a row of another run",
                "a row of the run `other`",
                Box::new(|lines| lines[1] = change(&lines[1], |row| row["run_id"] = "other".into())),
            ),
            (
                "a row of another schema",
                "schema 9.0.0",
                Box::new(|lines| lines[1] = change(&lines[1], |row| row["schema"] = "9.0.0".into())),
            ),
            (
                "a row of an older schema",
                "schema 1.1.0 in a run of schema",
                Box::new(|lines| lines[1] = change(&lines[1], |row| row["schema"] = "1.1.0".into())),
            ),
            (
                "not verified",
                "verified",
                Box::new(|lines| {
                    let counts = |line: &String| line.contains("\"status\":\"ok\"");
                    let at = lines.iter().position(counts).expect("a row that counts");
                    lines[at] = change(&lines[at], |row| row["verified"] = false.into());
                }),
            ),
        ];
        for (what, expected, change) in said {
            let copy = Copy::of(workshop.path(), kind);
            let mut lines = copy.lines();
            // Rejected rows may be followed by their repetition; the changes above mean rows that count.
            lines.retain(|line| !line.contains("\"status\":\"rejected\""));
            change(&mut lines);
            copy.set_lines(&lines);
            copy.renew();
            copy.refused(kind, what, expected);
            if !what.contains("another schema") {
                copy.accepted(kind, what);
            }
        }

        // A value, with the sums and without them; the first, and the last, which no line follows.
        for (place, expected) in [(0, "line 2: the line before it"), (usize::MAX, "that the run ended with")] {
            for sums in [true, false] {
                let copy = Copy::of(workshop.path(), kind);
                let mut lines = copy.lines();
                let place = place.min(lines.len() - 1);
                lines[place] = change(&lines[place], |row| row["started_ns"] = 7.into());
                copy.set_lines(&lines);
                if !sums {
                    fs::remove_file(copy.root().join("SHA256SUMS")).expect("sums to remove");
                }
                copy.refused(kind, "an edited value", expected);
                copy.accepted(kind, "an edited value");
            }
        }

        // The manifest and the plan, with the sums and without them.
        for sums in [true, false] {
            for (file, old, new, expected) in [
                ("manifest.json", "\"started_utc\": \"", "\"started_utc\": \"1", "manifest.json was edited"),
                ("plan.jsonl", "\"env_pad\":", "\"env_pad\":1", "is not what was planned"),
            ] {
                let copy = Copy::of(workshop.path(), kind);
                copy.write(file, &copy.read(file).replacen(old, new, 1));
                if !sums {
                    fs::remove_file(copy.root().join("SHA256SUMS")).expect("sums to remove");
                }
                copy.refused(kind, file, expected);
                copy.accepted(kind, file);
            }
        }
        // In another mode than was asked for, where a row says in which it was.
        if kind.subject == "mode_requested" {
            let copy = Copy::of(workshop.path(), kind);
            let mut lines = copy.lines();
            let at = lines.iter().position(|line| line.contains("\"status\":\"ok\"")).expect("a row that counts");
            lines[at] = change(&lines[at], |row| {
                assert!(row["mode_active"].is_string(), "{row}");
                row["mode_active"] = if row["mode_active"] == "percpu" { "perthread" } else { "percpu" }.into();
            });
            copy.set_lines(&lines);
            copy.renew();
            copy.refused(kind, "another mode active", "was asked for");
            copy.accepted(kind, "another mode active");
        }

        // Compressed rows are the same rows: read as they were, and refused where they were changed.
        let rows = Copy::of(workshop.path(), kind).read("samples.jsonl");
        for (program, ending, what) in [("gzip", "gz", "compressed by gzip"), ("zstd", "zst", "compressed by zstd")] {
            let copy = Copy::of(workshop.path(), kind);
            if Command::new(program).arg("--version").output().is_err() {
                assert!(program == "zstd" && std::env::var_os("CI").is_none(), "{program} is needed");
                println!("not tested: rows compressed by {program}, which is not here");
                continue;
            }
            compress(program, &copy.root());
            good(&perseq(workshop.path(), &format!("report {}", copy.name)), what);
            assert!(copy.made(kind) == before, "{}, {what}: the same rows, the same bytes", kind.name);
            // As someone leaves them who is interrupted while he compresses them, or unpacks them and keeps both.
            let packed = format!("samples.jsonl.{ending}");
            let sums = copy.read("SHA256SUMS");
            let bytes = fs::read(copy.root().join(&packed)).expect("packed rows");
            let of_packed = sum(&bytes);
            let other_sums = sums.replace(&sum(rows.as_bytes()), &of_packed).replace("samples.jsonl", &packed);
            copy.write("samples.jsonl", &rows);
            for (sums, what) in [(&sums, "sums of plain rows"), (&other_sums, "sums of compressed rows")] {
                copy.write("SHA256SUMS", sums);
                good(&perseq(workshop.path(), &format!("report {}", copy.name)), what);
                assert!(copy.made(kind) == before, "{}, {what}: the same rows, the same bytes", kind.name);
            }
            let other_rows = rows.replacen("\"started_ns\":", "\"started_ns\":1", 1);
            for other in [&other_rows, "", &rows[..rows.len() - 1]] {
                copy.write("samples.jsonl", other);
                copy.refused(kind, "compressed rows beside other ones", "expected one file of rows");
            }
            copy.write("samples.jsonl", &rows);
            fs::write(copy.root().join(&packed), &bytes[..bytes.len() / 2]).expect("half of the packed rows");
            copy.refused(kind, "half of the compressed rows beside plain ones", "expected one file of rows");
            fs::write(copy.root().join(&packed), bytes).expect("the packed rows");
            fs::remove_file(copy.root().join(&packed)).expect("packed rows to remove");
            copy.write("SHA256SUMS", &sums);
            copy.write("samples.jsonl", &other_rows);
            compress(program, &copy.root());
            copy.refused(kind, "edited rows, compressed", "line before it");
        }
        let copy = Copy::of(workshop.path(), kind);
        fs::remove_file(copy.root().join("SHA256SUMS")).expect("sums to remove");
        copy.refused(kind, "no sums", "SHA256SUMS is missing");
        let copy = Copy::of(workshop.path(), kind);
        copy.write("manifest.json", &copy.read("manifest.json").replacen("\"schema\": \"1.", "\"schema\": \"7.", 1));
        copy.refused(kind, "a manifest of another schema", "schema 7.");

        // Half a line at the end of a finished run: not for a reader, but for `resume`, which takes the sample again.
        let copy = Copy::of(workshop.path(), kind);
        let text = copy.read("samples.jsonl");
        copy.write("samples.jsonl", &text[..text.len() - 40]);
        copy.refused(kind, "a cut last row", "was cut off");
        let resumed = perseq(workshop.path(), &format!("resume {} {}", copy.name, kind.resume));
        good(&resumed, kind.name);
        assert!(stderr(&resumed).contains("was cut off"), "{}", stderr(&resumed));
        good(&perseq(workshop.path(), &format!("report {}", copy.name)), "a resumed run");
        // But nothing else is passed over on the way.
        let copy = Copy::of(workshop.path(), kind);
        let mut lines = copy.lines();
        lines[0] = change(&lines[0], |row| row["started_ns"] = 7.into());
        copy.set_lines(&lines[..lines.len() - 1]);
        let resumed = perseq(workshop.path(), &format!("resume {} {}", copy.name, kind.resume));
        assert_eq!(resumed.status.code(), Some(2), "{}: {}", kind.name, stderr(&resumed));
        assert_eq!(stderr(&resumed).lines().count(), 1, "{}", stderr(&resumed));
    }
}

/// A run as it is kept beside a source: plan and rows compressed, the rows in parts if they are many.
#[test]
fn a_packed_run_is_the_run_it_was_and_its_parts_cannot_be_changed() {
    let kind = &KINDS[0];
    let workshop = workshop(&[kind]);
    let report = |copy: &Copy, what: &str| good(&perseq(workshop.path(), &format!("report {}", copy.name)), what);
    let copy = Copy::of(workshop.path(), kind);
    report(&copy, "a plain run");
    let (before, sums, rows) = (copy.made(kind), copy.read("SHA256SUMS"), copy.read("samples.jsonl"));
    let checked = |copy: &Copy| {
        let check =
            Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(copy.root()).status();
        check.expect("sha256sum starts").success()
    };
    let pack = |copy: &Copy| perseq(workshop.path(), &format!("pack {}", copy.name));
    good(&pack(&copy), "pack");
    let there = |name: &str| copy.root().join(name).exists();
    assert_eq!(["plan.jsonl", "samples.jsonl"].map(there), [false; 2]);
    assert_eq!(["plan.jsonl.gz", "samples.jsonl.gz"].map(there), [true; 2]);
    assert!(checked(&copy));
    report(&copy, "a packed run");
    assert!(copy.made(kind) == before, "the same rows, the same bytes");
    good(&pack(&copy), "packed twice");
    assert!(checked(&copy));
    // Sums of the plain files are sums of the packed ones.
    copy.write("SHA256SUMS", &sums);
    report(&copy, "packed, with the sums of the plain files");

    // In parts, as those of a large run are.
    let lines: Vec<_> = rows.lines().collect();
    let parts = |copy: &Copy, parts: &[&[&str]]| {
        drop(fs::remove_file(copy.root().join("samples.jsonl")));
        let mut sums =
            sums.lines().filter(|line| !line.contains("samples")).map(|line| format!("{line}\n")).collect::<String>();
        for (number, lines) in (1..).zip(parts) {
            let (plain, name) = (format!("samples-{number:02}.jsonl"), format!("samples-{number:02}.jsonl.gz"));
            copy.write(&plain, &(lines.join("\n") + "\n"));
            let done = Command::new("gzip").args(["-q", "-f", "-n", &plain]).current_dir(copy.root()).status();
            assert!(done.expect("gzip starts").success());
            sums += &format!("{}  {name}\n", sum(&fs::read(copy.root().join(&name)).expect("a part")));
        }
        copy.write("SHA256SUMS", &sums);
    };
    let (first, second) = lines.split_at(lines.len() / 2);
    let copy = Copy::of(workshop.path(), kind);
    parts(&copy, &[first, second]);
    assert!(checked(&copy));
    report(&copy, "two parts");
    assert!(copy.made(kind) == before, "the same rows, the same bytes");
    let kept = fs::read(copy.root().join("samples-02.jsonl.gz")).expect("a part");
    fs::remove_file(copy.root().join("samples-02.jsonl.gz")).expect("a part");
    copy.refused(kind, "a part is missing", "have no row");
    fs::write(copy.root().join("samples-02.jsonl.gz"), &kept[..kept.len() / 2]).expect("half of a part");
    copy.refused(kind, "half of a part", "cannot read");
    fs::write(copy.root().join("samples-02.jsonl.gz"), kept).expect("a part");
    copy.write("samples.jsonl", &rows.replacen("\"started_ns\":", "\"started_ns\":1", 1));
    copy.refused(kind, "other rows beside the parts", "expected one file of rows");
    copy.write("samples.jsonl", &rows);
    report(&copy, "parts beside the whole");
    good(&pack(&copy), "parts beside the whole");
    assert!(checked(&copy) && !copy.root().join("samples-01.jsonl.gz").exists());
    for (what, changed) in [
        ("parts in another order", [second, first].map(<[_]>::to_vec)),
        ("a row removed between them", [first, &second[1..]].map(<[_]>::to_vec)),
        ("a row doubled between them", [first, &lines[first.len() - 1..]].map(<[_]>::to_vec)),
    ] {
        let copy = Copy::of(workshop.path(), kind);
        parts(&copy, &changed.each_ref().map(Vec::as_slice));
        copy.refused(kind, what, "samples.jsonl: line ");
    }
    // What is not as it was, or not over, is not packed.
    let copy = Copy::of(workshop.path(), kind);
    copy.write("samples.jsonl", &rows.replacen("\"started_ns\":", "\"started_ns\":1", 1));
    for expected in ["not the file that this run ended with", "not a finished run"] {
        let packed = pack(&copy);
        assert_eq!(packed.status.code(), Some(2), "{expected}");
        assert!(stderr(&packed).contains(expected), "{}", stderr(&packed));
        assert!(copy.root().join("samples.jsonl").exists());
        fs::remove_file(copy.root().join("SHA256SUMS")).ok();
    }
}

#[test]
fn an_interrupted_run_of_every_kind_is_completed() {
    let workshop = workshop(&[]);
    for kind in &KINDS {
        // Enough of it that it is not over before the signal comes.
        let long = kind.command.replace("--blocks 2", "--blocks 40").replace("--rounds 2", "--rounds 40");
        let mut run = Command::new(env!("CARGO_BIN_EXE_perseq"))
            .args(long.split(' '))
            .args(["--out", kind.name])
            .current_dir(workshop.path())
            .env("XDG_CACHE_HOME", workshop.path().join("cache"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("perseq starts");
        let root = workshop.path().join(kind.name);
        let taken = || fs::read_to_string(root.join("samples.jsonl")).map_or(0, |text| text.lines().count());
        let begin = Instant::now();
        while taken() < 2 {
            assert!(begin.elapsed() < Duration::from_secs(300), "{}: no samples are written", kind.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = nix::unistd::Pid::from_raw(run.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("the run is alive");
        assert_eq!(run.wait().expect("the run ends").code(), Some(4), "{}", kind.name);
        let rows = fs::read_to_string(root.join("samples.jsonl")).expect("rows");
        let plan = fs::read_to_string(root.join("plan.jsonl")).expect("a plan");
        assert!(rows.lines().count() < plan.lines().count(), "{}", kind.name);
        // What is there can be read, edited rows can not, and the directory is not overwritten.
        good(&perseq(workshop.path(), &format!("rows {}", kind.name)), kind.name);
        let edited = rows.replacen("\"attempt\":1", "\"attempt\": 1", 1);
        fs::write(root.join("samples.jsonl"), &edited).expect("rows");
        let resume = format!("resume {} {}", kind.name, kind.resume);
        assert_eq!(perseq(workshop.path(), &resume).status.code(), Some(2), "{}: a row was edited", kind.name);
        fs::write(root.join("samples.jsonl"), &rows).expect("rows");

        // Shortened to what a test has time for: the plan is the first samples of the long one.
        let short = shortened(&root, &rows);
        // A compressed copy is none of what comes behind.
        let copied = Command::new("gzip").args(["-q", "-k", "samples.jsonl"]).current_dir(&root).status();
        assert!(copied.expect("gzip starts").success());
        good(&perseq(workshop.path(), &resume), kind.name);
        let all = fs::read_to_string(root.join("samples.jsonl")).expect("rows");
        assert!(all.lines().count() >= short, "{}", kind.name);
        assert!(!root.join("samples.jsonl.gz").exists(), "{}", kind.name);
        good(&perseq(workshop.path(), &format!("report {}", kind.name)), kind.name);
        let check = Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&root).status();
        assert!(check.expect("sha256sum starts").success());
    }
}

/// Leaves two samples more in the plan than have rows. The chain begins anew, since it begins at the plan.
fn shortened(root: &Path, rows: &str) -> usize {
    let plan = fs::read_to_string(root.join("plan.jsonl")).expect("a plan");
    let settled = rows.lines().filter(|line| !line.contains("\"status\":\"rejected\"")).count();
    let plan: String = plan.lines().take(settled + 2).map(|line| line.to_owned() + "\n").collect();
    fs::write(root.join("plan.jsonl"), &plan).expect("a plan");
    let mut previous = sum(plan.as_bytes());
    let mut text = String::new();
    for line in rows.lines() {
        let line = change(line, |row| row["previous"] = previous.into());
        previous = sum(line.as_bytes());
        text += &(line + "\n");
    }
    fs::write(root.join("samples.jsonl"), text).expect("rows");
    settled + 2
}
