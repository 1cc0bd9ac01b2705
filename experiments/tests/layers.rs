//! Arrows between the files of `src` go down: no circle of files, and no file uses one of a layer above its own.
//!
//! The arrows are read from `use` declarations and from paths written out in the code. Test modules may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Layers from the lowest, each with the modules in it. A module stands for the files below it unless they are named.
const LAYERS: &[(&str, &[&str])] = &[
    ("words for errors and missing values", &["failure", "known", "checksum", "compressed"]),
    (
        "facts",
        &[
            "addresses",
            "beside",
            "gate",
            "host_file",
            "mappings",
            "marks",
            "memory",
            "output",
            "provenance",
            "subject",
            "totals",
            "validity",
            "written",
        ],
    ),
    ("what is measured, and of what", &["counters", "definition", "host", "measurement", "pattern", "trace"]),
    ("the harness", &["harness"]),
    ("the memory of a process", &["live::find", "live::process", "live::ranges", "live::record", "live::spans"]),
    ("the work of a sample", &["instrument", "proof", "workload"]),
    ("the processes of a sample", &["peers", "worker", "suite::worker"]),
    ("the experiments as a kind of run", &["experiment", "own", "plan", "selftest"]),
    ("how a run is told", &["report"]),
    ("the other kinds of run", &["suite"]),
    ("kinds of run that need the suite's allocators", &["programs", "replay"]),
    ("guests", &["simulate"]),
    (
        "commands",
        &[
            "calibrate",
            "classes",
            "compare",
            "doctor",
            "heap_profile",
            "limits",
            "list",
            "live",
            "power",
            "record",
            "rows",
            "run",
            "torture",
            "traces",
        ],
    ),
    ("commands about any kind of run", &["directory", "merge"]),
    ("the command line", &["cli", "main"]),
];

/// Arrows that may go up, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_circle_of_files() {
    let arrows = arrows();
    let circles: Vec<_> = circles(&arrows).into_iter().filter(|circle| circle.len() > 1).collect();
    assert!(circles.is_empty(), "files that need each other: {circles:#?}");
}

#[test]
fn arrows_go_down() {
    let arrows = arrows();
    let mut up = Vec::new();
    for (from, targets) in &arrows {
        for to in targets {
            let excepted = EXCEPTIONS.iter().any(|(a, b, reason)| a == from && b == to && !reason.is_empty());
            if layer(to) > layer(from) && !excepted {
                up.push(format!("{from} ({}) uses {to} ({})", LAYERS[layer(from)].0, LAYERS[layer(to)].0));
            }
        }
    }
    assert!(up.is_empty(), "arrows that go up: {up:#?}");
    for (from, to, _) in EXCEPTIONS {
        assert!(arrows[*from].contains(*to), "{from} no longer uses {to}: the exception can go");
    }
}

/// Processes of samples are started in one place: what is said of their memory, their end and their binary holds for all.
#[test]
fn samples_are_started_in_one_place() {
    const OTHERS: &[(&str, &str)] = &[
        ("harness::launch", "the launcher starts the sample"),
        ("harness::process", "the harness starts the launcher"),
        ("heap_profile::launch", "the program that is profiled"),
        ("limits::core", "the debugger that dumps a process"),
        ("limits::heap", "a process for each number, which is no sample: it has no time"),
        ("peers::recipe", "compilers and package managers"),
        ("programs", "apt-get"),
        ("record", "the program that is recorded"),
        ("simulate::packages", "apt-get and dpkg-deb"),
        ("torture::forces::external", "actors of a storm, which is no sample"),
        ("torture::forces::processes", "children of a storm"),
        ("torture::run", "storms, and gdb for one that hangs"),
    ];
    let starts = |text: &str| code(text).contains("Command::new(");
    let found: Vec<_> = texts().into_iter().filter(|(_, text)| starts(text)).map(|(name, _)| name).collect();
    assert_eq!(found, OTHERS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

/// The model of caches and the statistics know nothing of what they are fed with, and their files stand one above the
/// other. The model uses no other crate.
#[test]
fn the_model_and_the_statistics_stand_alone() {
    let model = ["topology", "geometry", "lines", "cache", "counts", "objects", "reuse", "model", "places", "lib"];
    stands_alone("cache-model", &model, &[]);
    let statistics = ["estimate", "paired", "shape", "verdict", "lib", "simulation", "tests"];
    stands_alone("statistics", &statistics, &["rand", "rand_chacha", "statrs"]);
}

/// The crate has these files, from the lowest up, and uses these crates only.
fn stands_alone(name: &str, files: &[&str], crates: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let used = manifest.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    assert_eq!(used.collect::<Vec<_>>(), crates);
    let texts = texts_below(&folder.join("src"));
    assert_eq!(texts.keys().map(String::as_str).collect::<BTreeSet<_>>(), files.iter().copied().collect());
    let modules = texts.keys().cloned().collect();
    let place = |name: &str| files.iter().position(|file| *file == name);
    for (from, text) in &texts {
        for to in targets(from, text, &modules).iter().filter(|to| *to != "lib") {
            assert!(place(to) < place(from), "{from} uses {to}");
        }
    }
}

/// The test can fail: a circle and an arrow upwards are seen where there are some.
#[test]
fn circles_and_paths_are_seen() {
    let modules = ["a", "b", "b::c", "d"].map(str::to_owned).into();
    let uses = |module: &str, text: &str| targets(module, text, &modules).into_iter().collect::<Vec<_>>();
    assert_eq!(uses("a", "use crate::{b::{self, c::X}, d};"), ["b", "b::c", "d"]);
    assert_eq!(uses("b", "mod c;\nfn f() { c::g(); crate::d::h() }"), ["b::c", "d"]);
    assert_eq!(uses("b::c", "use super::Y; // crate::a\nconst T: &str = \"crate::d\";"), ["b"]);
    assert!(uses("a", "#[cfg(test)]\nmod tests { use crate::d::X; }").is_empty());
    let arrows: Arrows =
        [("a", "b"), ("b", "c"), ("c", "a")].map(|(from, to)| (from.into(), [to.into()].into())).into();
    assert_eq!(circles(&arrows).iter().map(Vec::len).max(), Some(3));
}

fn layer(module: &str) -> usize {
    let place = |name: &str| LAYERS.iter().position(|(_, modules)| modules.contains(&name));
    let mut name = module;
    loop {
        match (place(name), name.rsplit_once("::")) {
            (Some(place), _) => return place,
            (None, Some((parent, _))) => name = parent,
            (None, None) => panic!("{module} is in no layer: give it one in LAYERS"),
        }
    }
}

/// The text of every module.
fn texts() -> BTreeMap<String, String> {
    let texts = texts_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(texts.len() > 80, "only {} files were found", texts.len());
    texts
}

/// The text of every module of a crate whose sources are in `root`.
fn texts_below(root: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root).expect("below the sources").with_extension("");
                let name = name.to_str().expect("UTF-8").replace('/', "::");
                let name = name.strip_suffix("::mod").map_or(name.clone(), str::to_owned);
                texts.insert(name, fs::read_to_string(path).expect("a source file"));
            }
        }
    }
    texts.retain(|name, _| !name.ends_with("::tests"));
    texts
}

/// Every module, and the modules it uses.
fn arrows() -> Arrows {
    let texts = texts();
    let modules: BTreeSet<String> = texts.keys().cloned().collect();
    texts.iter().map(|(name, text)| (name.clone(), targets(name, text, &modules))).collect()
}

/// The modules that the text of `module` uses.
fn targets(module: &str, text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let code = code(text);
    let own: Vec<&str> = if module == "main" { Vec::new() } else { module.split("::").collect() };
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with(['}', '{', ';', ')', ']']) || before.ends_with("pub")
        });
        match start {
            Some(at) => {
                tree("", statement[at + 4..].trim_end_matches(';'), &mut paths);
                rest += &statement[..at];
            }
            None => rest += statement,
        }
    }
    let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    paths.extend(rest.split(|letter| !word(letter)).filter(|path| path.contains("::")).map(str::to_owned));
    paths.iter().filter_map(|path| resolve(path, &own, modules)).filter(|target| target != module).collect()
}

/// The deepest module that a path leads into.
fn resolve(path: &str, own: &[&str], modules: &BTreeSet<String>) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
    let mut at = own.to_vec();
    match *parts.first()? {
        "crate" => {
            parts.remove(0);
            at.clear();
        }
        "self" => drop(parts.remove(0)),
        "super" => {
            while parts.first() == Some(&"super") {
                parts.remove(0);
                at.pop();
            }
        }
        first => {
            at.push(first);
            modules.contains(&at.join("::")).then_some(())?;
            at.pop();
        }
    }
    at.extend(parts);
    while !at.is_empty() {
        if modules.contains(&at.join("::")) {
            return Some(at.join("::"));
        }
        at.pop();
    }
    None
}

/// The paths of a `use` tree.
fn tree(before: &str, text: &str, paths: &mut Vec<String>) {
    let text = text.trim();
    let Some((head, body)) = text.split_once('{') else {
        let name = text.split(" as ").next().unwrap_or(text).trim();
        paths.push(format!("{before}{}", if name == "self" { "" } else { name }));
        return;
    };
    let (mut depth, mut start) = (0, 0);
    let body = body.rsplit_once('}').map_or(body, |(body, _)| body);
    for (at, letter) in body.char_indices().chain([(body.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !body[start..at].trim().is_empty() {
                    tree(&format!("{before}{}", head.trim()), &body[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The text without comments, strings and test modules.
fn code(text: &str) -> String {
    let pattern = r#"(?m)//.*$|"(?:[^"\\]|\\.|\\\n)*"|'(?:[^'\\]|\\.)'"#;
    let plain = regex::Regex::new(pattern).expect("a pattern").replace_all(text, "").into_owned();
    match plain.find("#[cfg(test)]\nmod ").or_else(|| plain.find("#[cfg(test)]\npub mod ")) {
        Some(tests) => plain[..tests].to_owned(),
        None => plain,
    }
}

/// Strongly connected components, by Tarjan.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    struct Walk<'a> {
        arrows: &'a Arrows,
        number: BTreeMap<&'a str, usize>,
        least: BTreeMap<&'a str, usize>,
        stack: Vec<&'a str>,
        found: Vec<Vec<String>>,
    }
    impl<'a> Walk<'a> {
        fn visit(&mut self, at: &'a str) {
            let number = self.number.len();
            self.number.insert(at, number);
            self.least.insert(at, number);
            self.stack.push(at);
            for to in self.arrows.get(at).into_iter().flatten() {
                if !self.number.contains_key(to.as_str()) {
                    self.visit(to);
                    self.least.insert(at, self.least[at].min(self.least[to.as_str()]));
                } else if self.stack.contains(&to.as_str()) {
                    self.least.insert(at, self.least[at].min(self.number[to.as_str()]));
                }
            }
            if self.least[at] == number {
                let start = self.stack.iter().rposition(|name| *name == at).expect("it was pushed");
                self.found.push(self.stack.split_off(start).into_iter().map(str::to_owned).collect());
            }
        }
    }
    let mut walk =
        Walk { arrows, number: BTreeMap::new(), least: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for module in arrows.keys() {
        if !walk.number.contains_key(module.as_str()) {
            walk.visit(module);
        }
    }
    walk.found
}
