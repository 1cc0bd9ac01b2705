//! The book says what there is: its chapters, links, included files, functions and commands exist, and a rung fits on two
//! pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use perseq_guide::RUNGS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

fn chapters() -> PathBuf {
    root().join("docs/guide/src")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Text without fenced code, in which brackets and backticks mean something else.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let keep = |line: &&str| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !(fenced || fence)
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// What links to a heading are made of.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether a file of code says `name` where it makes something of that name.
fn defines(code: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "const", "static", "mod", "macro_rules!"].iter().any(|keyword| {
        let words = format!("{keyword} {name}");
        code.match_indices(&words).any(|(at, _)| {
            let next = code[at + words.len()..].chars().next();
            !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
        })
    })
}

/// What is wrong with a text that lies in `folder`.
fn problems(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for include in text.split("{{#include ").skip(1) {
        let target = include.split("}}").next().expect("a part");
        if !folder.join(target).is_file() {
            found.push(format!("included: {target}"));
        }
    }
    let prose = prose(text);
    let parts: Vec<_> = prose.split("](").collect();
    for pair in parts.windows(2) {
        let name = pair[0].rsplit('[').next().expect("a part");
        let link = pair[1].split(')').next().expect("a part");
        let (target, part) = link.split_once('#').unwrap_or((link, ""));
        if target.contains("://") {
            continue;
        }
        let path = folder.join(target);
        if !target.is_empty() && !path.exists() {
            found.push(format!("linked: {link}"));
            continue;
        }
        // mdBook makes `.html` of `.md` in any link, also where it makes no such file: outside of the book.
        let inside = path.parent().is_some_and(|parent| parent == folder);
        if target.ends_with(".md") && !(inside || path.with_extension("html").exists()) {
            found.push(format!("outside of the book: {link}"));
        }
        if !part.is_empty() {
            let linked = if target.is_empty() { text.to_owned() } else { read(&path) };
            let headings = linked.lines().filter_map(|line| line.strip_prefix('#'));
            if !headings.map(|line| anchor(line.trim_start_matches('#').trim())).any(|known| known == part) {
                found.push(format!("no such heading: {link}"));
            }
        }
        // Code between backticks that links to a file of code is defined there, unless it is the file's path.
        let code = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')).filter(|code| !code.contains('/'));
        if let Some(code) = code.filter(|code| target.ends_with(".rs") && !code.ends_with(".rs")) {
            let last = code.rsplit("::").next().expect("a part").trim_end_matches("()");
            if !defines(&read(&path), last) {
                found.push(format!("{code} is not in {target}"));
            }
        }
    }
    for code in prose.split('`').skip(1).step_by(2) {
        let path = code.split([' ', ':']).next().expect("a part");
        let folders = [
            "src/",
            "tests/",
            "rseq/",
            "asm/",
            "preload/",
            "experiments/",
            "benches/",
            "docs/",
            "results/",
            "README.md",
        ];
        let is_ours = folders.iter().any(|folder| path.starts_with(folder)) && !path.contains(['*', '<', '{']);
        if is_ours && !root().join(path).exists() {
            found.push(format!("named: {path}"));
        }
    }
    for command in text.split("-p perseq-guide -- ").skip(1) {
        let name = command.trim_start_matches("--check ").split([' ', '\n', '`']).next().expect("a part");
        if name != "--list" && !RUNGS[1..].iter().any(|(known, _)| *known == name) {
            found.push(format!("no such rung in a command: {name}"));
        }
    }
    found
}

#[test]
fn what_the_chapters_name_exists() {
    let mut found = Vec::new();
    for entry in fs::read_dir(chapters()).expect("the chapters") {
        let path = entry.expect("an entry").path();
        let text = read(&path);
        found.extend(problems(&chapters(), &text).into_iter().map(|what| format!("{}: {what}", path.display())));
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.chars().count() > 120) {
            found.push(format!("{}:{}: {} columns", path.display(), number + 1, line.chars().count()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_summary_names_every_chapter() {
    let summary = read(&chapters().join("SUMMARY.md"));
    let named: Vec<_> =
        summary.split("](").skip(1).map(|link| link.split(')').next().expect("a part").to_owned()).collect();
    let unique: BTreeSet<_> = named.iter().cloned().collect();
    assert_eq!(named.len(), unique.len(), "a chapter is named once: {named:?}");
    let files: BTreeSet<_> = fs::read_dir(chapters())
        .expect("the chapters")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "SUMMARY.md")
        .collect();
    assert_eq!(unique, files);
}

/// Each rung has a chapter that shows its whole code and says how to measure it.
#[test]
fn each_rung_is_short_and_has_a_chapter() {
    let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (name, _) in &RUNGS[1..RUNGS.len() - 1] {
        let chapter = read(&chapters().join(format!("{name}.md")));
        let command = format!("cargo run --release -p perseq-guide -- {name}\n");
        assert!(chapter.contains(&command), "{name} says how it is run");
        let files: Vec<_> = chapter
            .split("{{#include ../rungs/src/")
            .skip(1)
            .map(|include| include.split("}}").next().expect("a part"))
            .collect();
        assert!(files.contains(&format!("{name}.rs").as_str()), "{name} shows its code: {files:?}");
        for file in files {
            let lines = read(&code.join(file)).lines().count();
            assert!(lines <= 150, "{file} has {lines} lines");
        }
    }
}

#[test]
fn what_is_wrong_is_found() {
    let wrong = "\
# A heading\n\
[here](#a-heading), [gone](gone.md), [outside](../../../README.md), [part](SUMMARY.md#nothing), [web](https://example.org/x)\n\
[`Perseq::alloc`](../../../src/allocator.rs) and [`Perseq::allocate`](../../../src/allocator.rs)\n\
{{#include ../rungs/src/gone.rs}} and {{#include ../rungs/src/bump.rs}}\n\
`src/gone.rs` and `src/allocator.rs`; `cargo run -p perseq-guide -- gone`, `cargo run -p perseq-guide -- --check bump`\n\
```text\n[`not`](looked at)\n```\n";
    let mut found = problems(&chapters(), wrong);
    found.sort();
    assert_eq!(
        found,
        [
            "Perseq::allocate is not in ../../../src/allocator.rs",
            "included: ../rungs/src/gone.rs",
            "linked: gone.md",
            "named: src/gone.rs",
            "no such heading: SUMMARY.md#nothing",
            "no such rung in a command: gone",
            "outside of the book: ../../../README.md",
        ]
    );
}
