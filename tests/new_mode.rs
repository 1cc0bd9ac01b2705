//! A mode is one file and one entry: a copy of this tree gets a copy of every mode that way, by the steps of
//! `docs/adding-a-mode.md`, and each copy does what its original does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is copied of the package: what building it takes.
const TREE: [&str; 6] = ["Cargo.toml", "build.rs", "build", "src", "rseq", "asm"];

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder can be made");
        for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        let text = fs::read(from).expect("a file");
        write(to, &text);
    }
}

/// Writes what is not there already, so that only what changed is built again.
fn write(file: &Path, text: &[u8]) {
    if !fs::read(file).is_ok_and(|there| there == text) {
        fs::write(file, text).expect("it can be written");
    }
}

/// The files of modes, each with the types of its modes and their names, as `src/mode.rs` lists them.
fn files_of_modes(list: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<_>)> = Vec::new();
    let begin = list.find("=> { $make!").expect("the list of modes");
    let end = begin + list[begin..].find("} };").expect("its end");
    for line in list[begin..end].lines().skip(1) {
        let mut rest = line.trim();
        if let Some((file, after)) = rest.split_once(" {")
            && file.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            found.push((file.to_owned(), Vec::new()));
            rest = after.trim();
        }
        if let Some((mode, after)) = rest.split_once(" = \"") {
            let (name, _) = after.split_once('"').expect("a name");
            found.last_mut().expect("a file").1.push((mode.to_owned(), name.to_owned()));
        }
    }
    found
}

/// The copy of a file of modes, and its entry in the list.
fn copied(file: &str, modes: &[(String, String)], text: &str) -> (String, String) {
    let (mut text, mut entry) = (text.to_owned(), Vec::new());
    for (mode, name) in modes {
        for (from, to) in [
            (format!("pub enum {mode} {{}}"), format!("pub enum Copied{mode} {{}}")),
            (format!("impl FrontEnd for {mode} {{"), format!("impl FrontEnd for Copied{mode} {{")),
        ] {
            assert_eq!(text.matches(&from).count(), 1, "{from} in {file}.rs");
            text = text.replace(&from, &to);
        }
        entry.push(format!("Copied{mode} = \"copied-{name}\": \"A copy of `{name}`.\""));
    }
    (text, format!("copied_{file} {{ {} }}", entry.join(", ")))
}

/// Runs the commands that CONTRIBUTING.md gives for a mode called `mine`.
fn contributing(own: &Path, tree: &Path) {
    let text = fs::read_to_string(own.join("CONTRIBUTING.md")).expect("the guide");
    let (_, section) = text.split_once("## Adding a mode").expect("the section");
    let section = section.lines().take_while(|line| !line.starts_with("## "));
    let commands: Vec<_> = section.filter(|line| line.starts_with("sed ")).collect();
    assert_eq!(commands.len(), 2, "one file and one entry: {commands:?}");
    let status = Command::new("sh").args(["-ec", &commands.join("\n")]).current_dir(tree).status().expect("sh starts");
    assert!(status.success());
    let list = fs::read_to_string(tree.join("src/mode.rs")).expect("the list");
    assert_eq!(list.matches("mine {").count(), 1, "the entry was made");
}

fn cargo_builds(program: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new_mode/target");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(program)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/new_mode")
}

fn said(program: &Path, mode: &str) -> String {
    let output =
        Command::new("timeout").args(["60"]).arg(program).env("PERSEQ_MODE", mode).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{mode}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_mode_is_one_file_and_one_entry() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new_mode");
    let tree = place.join("tree");
    fs::create_dir_all(&tree).expect("a folder can be made");
    for part in TREE {
        copy(&own.join(part), &tree.join(part));
    }
    // The other members of the workspace are not there, nor are tests, benchmarks and examples.
    let manifest = fs::read_to_string(own.join("Cargo.toml")).expect("the manifest");
    let (mut alone, mut there) = (String::new(), true);
    for line in manifest.lines().filter(|line| !line.starts_with("default-members")) {
        there = if line.starts_with('[') { !line.starts_with("[[") } else { there };
        if there {
            alone += if line.starts_with("members = [") { "members = [\"rseq\"]" } else { line };
            alone.push('\n');
        }
    }
    write(&tree.join("Cargo.toml"), alone.as_bytes());

    let list = fs::read_to_string(own.join("src/mode.rs")).expect("the list");
    let files = files_of_modes(&list);
    let names: Vec<_> = files.iter().flat_map(|(_, modes)| modes.iter().map(|(_, name)| name.as_str())).collect();
    assert_eq!(names, perseq::Mode::ALL.map(perseq::Mode::name), "every mode is copied");
    let folder = tree.join("src/front_end/modes");
    let mut entries = Vec::new();
    for (file, modes) in &files {
        let text = fs::read_to_string(folder.join(format!("{file}.rs"))).expect("the file of a mode");
        let (text, entry) = copied(file, modes, &text);
        write(&folder.join(format!("copied_{file}.rs")), text.as_bytes());
        entries.push(entry);
    }
    let guide = fs::read_to_string(own.join("docs/adding-a-mode.md")).expect("the guide");
    assert!(guide.contains(&entries[1]), "the guide shows the entry of a copy: {}", entries[1]);
    let last = "        uncached {";
    assert_eq!(list.matches(last).count(), 1, "the last file in the list");
    let longer = list.replace(last, &format!("        {}\n{last}", entries.join("\n        ")));
    write(&tree.join("src/mode.rs"), longer.as_bytes());

    copy(&own.join("tests/new_mode"), &place.join("program"));
    contributing(own, &tree);
    let program = cargo_builds(&place.join("program"));
    assert_eq!(said(&program, "mine").replace("mine", "perthread"), said(&program, "perthread"));
    for name in names {
        let (original, copy) = (said(&program, name), said(&program, &format!("copied-{name}")));
        assert!(original.starts_with(&format!("{name} runs as ")), "{original}");
        assert!(copy.starts_with(&format!("copied-{name} runs as ")), "{copy}");
        assert_eq!(copy.replace("copied-", ""), original);
        print!("{copy}");
    }
}
