//! What `docs/features.md` says of perseq is there: each row that says yes or part leads to code, and to a test of the
//! name that it gives. And every relative link in the documents of `docs/` leads to something.

use std::fs;
use std::path::Path;

/// The first line of every table of features.
const HEADER: &str = "| feature | others that have it | perseq | code | test |";
/// Where the code is that a row names.
const CODE: [&str; 7] =
    ["src/", "rseq/", "preload/", "experiments/", "build/", "docs/guide/rungs/", "tests/test-kit/src/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(root().join(file)).ok()
}

/// Where a link of a document in `docs/` leads, from the root of the repository. `None`: out of it.
fn target(link: &str) -> Option<String> {
    let mut parts = vec!["docs"];
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()?),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The links of a text, each with what follows it up to the next one.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("](").skip(1).map(|part| part.split_once(')').unwrap_or((part, "")))
}

/// The relative links of a document in `docs/` that lead to nothing.
fn missing(document: &str, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let files = links(document).map(|(link, _)| link.split('#').next().unwrap_or_default());
    let relative = files.filter(|file| !file.is_empty() && !file.contains("://"));
    relative.filter(|file| !target(file).is_some_and(|path| is_there(&path))).map(str::to_owned).collect()
}

/// Whether the text of `file` has a test called `name`: in Rust a function that is one and is run, else the word.
fn has_test(file: &str, text: &str, name: &str) -> bool {
    if !file.ends_with(".rs") {
        return text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    }
    let lines: Vec<_> = text.lines().map(|line| line.trim_start().trim_start_matches("pub ")).collect();
    let begins = format!("fn {name}(");
    (0..lines.len()).filter(|&number| lines[number].starts_with(&begins)).any(|number| {
        let above = lines[..number].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let attributes: Vec<_> = above.collect();
        let has = |begin: &str| attributes.iter().any(|line| line.starts_with(begin));
        has("#[test]") && !has(concat!("#[", "ignore"))
    })
}

/// What is wrong with a row of features.
fn check(row: &str, read: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let inner = row.strip_prefix('|').and_then(|row| row.strip_suffix('|')).ok_or("expected a row of a table")?;
    let cells: Vec<_> = inner.split('|').map(str::trim).collect();
    let [feature, others, ours, code, test] = cells[..] else {
        return Err(format!("expected 5 cells, found {}", cells.len()));
    };
    if feature.is_empty() || others.is_empty() {
        return Err("expected a feature, and who has it or -".into());
    }
    let (state, words) = ours.split_once(": ").unwrap_or((ours, ""));
    match state {
        "no" if (code, test) == ("-", "-") => return Ok(()),
        "no" => return Err("expected no code and no test of what there is not: -".into()),
        "part" if words.is_empty() => return Err("expected which part: `part: WORDS`".into()),
        "yes" | "part" => {}
        other => return Err(format!("{other}: expected yes, part or no")),
    }
    let text = |link: &str| {
        let file = target(link).ok_or_else(|| format!("{link}: expected a file of the repository"))?;
        let text = read(&file).ok_or_else(|| format!("{file}: no such file"))?;
        Ok::<_, String>((file, text))
    };
    let (mut files, mut tests) = (0, 0);
    for (link, _) in links(code) {
        let (file, _) = text(link)?;
        if !CODE.iter().any(|folder| file.starts_with(folder)) || file.contains("/tests/") {
            return Err(format!("{file}: expected a file below {CODE:?} that is no test"));
        }
        files += 1;
    }
    for (link, after) in links(test) {
        let (file, text) = text(link)?;
        let names: Vec<_> = after.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            return Err(format!("{file}: expected the name of a test behind the link"));
        }
        if let Some(name) = names.iter().find(|name| !has_test(&file, &text, name)) {
            return Err(format!("{file}: no test `{name}`"));
        }
        tests += 1;
    }
    if files == 0 || tests == 0 {
        return Err("expected a link to code and one to a test".into());
    }
    Ok(())
}

#[test]
fn every_feature_has_its_code_and_its_test() {
    let page = read("docs/features.md").expect("the page");
    for theme in page.split("\n## ").skip(1) {
        let (_, table) = theme.split_once(HEADER).unwrap_or_else(|| panic!("expected {HEADER} in {theme}"));
        assert!(table.trim_start().starts_with("|---") && table.lines().count() > 3, "expected rows in {theme}");
    }
    let is_row = |line: &str| line.starts_with('|') && line != HEADER && !line.starts_with("|---");
    let wrong: Vec<_> = page
        .lines()
        .enumerate()
        .filter(|(_, line)| is_row(line))
        .filter_map(|(number, row)| Some(format!("line {}: {}", number + 1, check(row, read).err()?)))
        .collect();
    assert!(wrong.is_empty(), "docs/features.md: {wrong:#?}");
}

#[test]
fn every_relative_link_of_the_documents_leads_somewhere() {
    let mut documents = 0;
    for entry in fs::read_dir(root().join("docs")).expect("docs can be read") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "md") {
            let text = fs::read_to_string(&path).expect("text");
            let missing = missing(&text, |file| root().join(file).exists());
            assert!(missing.is_empty(), "{}: no such file: {missing:?}", path.display());
            documents += 1;
        }
    }
    assert!(documents > 3, "{documents} documents");
}

/// The checks above, on what is wrong.
#[test]
fn wrong_rows_and_links_are_found() {
    let files = |file: &str| match file {
        "src/a.rs" | "rseq/tests/kit.rs" | "README.md" => Some(String::new()),
        "tests/a.rs" => {
            let sleeps = concat!("#[test]\n#[", "ignore = \"slow\"]\nfn sleeps() {}");
            Some(format!("/// Does it?\n#[test]\n#[cfg(unix)]\nfn works() {{}}\n\nfn helps() {{}}\n\n{sleeps}\n"))
        }
        "tests/a.c" => Some("static int works(void)".to_owned()),
        _ => None,
    };
    let right = "| a thing | - | part: b | [src/a.rs](../src/a.rs) | [tests/a.rs](../tests/a.rs) `works` |";
    assert_eq!(check(right, files), Ok(()));
    assert_eq!(check(&right.replace("tests/a.rs", "tests/a.c"), files), Ok(()));
    assert_eq!(check("| a thing | - | no: b | - | - |", files), Ok(()));
    for (from, to) in [
        ("../src/a.rs", "../src/b.rs"),
        ("../src/a.rs", "../README.md"),
        ("../src/a.rs", "../rseq/tests/kit.rs"),
        ("../src/a.rs", "../../src/a.rs"),
        ("[src/a.rs](../src/a.rs)", "-"),
        ("../tests/a.rs", "../tests/b.rs"),
        ("`works`", "`work`"),
        ("`works`", "`helps`"),
        ("`works`", "`sleeps`"),
        ("`works`", "`works`, `helps`"),
        ("`works`", ""),
        ("[tests/a.rs](../tests/a.rs) `works`", "-"),
        ("part: b", "part"),
        ("part: b", "perhaps"),
        ("part: b", "no"),
        ("| a thing ", ""),
        ("a thing", ""),
    ] {
        let planted = right.replacen(from, to, 1);
        assert!(planted != right && check(&planted, files).is_err(), "{planted}");
    }
    let words = right.replace("tests/a.rs", "tests/a.c").replace("`works`", "`work`");
    assert!(check(&words, files).is_err(), "a part of a word is no name");

    let is_there = |file: &str| file == "src/a.rs" || file == "docs/b.md";
    let good = "[a](../src/a.rs) [b](b.md#part) [c](#part) [d](https://example.org/d)";
    assert_eq!(missing(good, is_there), Vec::<String>::new());
    assert_eq!(missing("[a](../src/c.rs) [b](../b.md#part)", is_there), ["../src/c.rs", "../b.md"]);
}
