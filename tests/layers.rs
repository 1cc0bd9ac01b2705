//! The order of `src`: who may use whom. Read from the paths that begin with `crate::`, `super::` or `self::`, outside of
//! tests and comments.
//!
//! What stands lower in [`LAYERS`] knows nothing of what stands above it, and no files use one another in a circle, but
//! for those that [`CIRCLES`] names with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders of `src`, from the highest to the lowest. One may use those of its own row and of rows below.
const LAYERS: &[&[&str]] = &[
    &["lib"],
    // Faces. One may stand on another.
    &["allocator", "allocator_api", "by_address", "by_layout", "heap", "objects", "pages"],
    &["process"],
    &["stats"],
    &["front_end"],
    &["profile"],
    &["hardened"],
    &["middle"],
    &["page_heap"],
    &["emergency"],
    // What the start decided.
    &["decided"],
    &["way"],
    &["mode"],
    &["owner"],
    // Leaves.
    &["names"],
    &["os"],
    &["vdso"],
    &["size_class"],
    &["place"],
    &["sync"],
    &["this_thread"],
    &["slices"],
    &["errno"],
    &["misuse"],
    &["fatal"],
    &["lock_order"],
    &["message"],
    &["atomic"],
    &["config"],
    &["written_once"],
];

/// Folders whose files may use one another in a circle, and why.
const CIRCLES: &[(&str, &str)] = &[(
    "page_heap",
    "the page heap is one type: its methods are in several files, each with a type that is a part of it",
)];

/// Files that only tests have, by their names.
const OF_TESTS: [&str; 2] = ["tests", "aborting"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules of `src` by their paths, such as `front_end::cache`, with their files' texts.
fn modules() -> BTreeMap<String, String> {
    fn walk(folder: &Path, path: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("src can be read").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
            let inside = if path.is_empty() { name.clone() } else { format!("{path}::{name}") };
            if entry.is_dir() {
                walk(&entry, &inside, found);
            } else if entry.extension().is_some_and(|end| end == "rs") && !OF_TESTS.contains(&name.as_str()) {
                let text = fs::read_to_string(&entry).expect("it can be read");
                found.insert(if name == "mod" { path.to_owned() } else { inside }, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&folder(), "", &mut found);
    assert!(found.len() > 40, "{} files", found.len());
    found
}

/// The code of a file without its comments, its texts, what only documentation uses, and its tests.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut skipped = false; // the line after an attribute that only documentation or tests have
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test, ") {
            let rest: Vec<_> = text.lines().skip_while(|other| *other != line).collect();
            if rest.get(1).is_some_and(|next| next.starts_with("mod tests {")) {
                break; // tests stand at the foot
            }
        }
        let bare = line.trim_start();
        if !(skipped || bare.starts_with("//")) {
            let end = bare.find(" // ").unwrap_or(bare.len());
            code.push_str(&bare[..end]);
            code.push('\n');
        }
        skipped = bare == "#[cfg(doc)]" || bare == "#[cfg(test)]";
    }
    code
}

/// Every path of the crate's own that the code of the module `own` names, in full.
fn paths(own: &str, is_folder: bool, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    let inside = if is_folder { own } else { parent };
    let above = inside.rsplit_once("::").map_or("", |(above, _)| above);
    // In a module inside the file, `super` is the file.
    let code = if code.lines().any(|line| line.starts_with("mod ") && line.ends_with('{')) {
        &code.replace("super::", "self::")
    } else {
        code
    };
    let bases = [("crate::", ""), ("self::", own), ("super::", if is_folder { above } else { parent })];
    for (start, base) in bases {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
                continue;
            }
            let rest = &code[at + start.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let (path, after) = rest.split_at(end);
            let whole = |tail: &str| {
                [base, path.trim_end_matches(':'), tail]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("::")
            };
            match after.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) {
                Some(group) => {
                    let group = &group[..group.find("};").unwrap_or(group.len())];
                    found.extend(group.split(',').map(|item| whole(item.trim().trim_start_matches("self"))));
                }
                None => found.push(whole("")),
            }
        }
    }
    found
}

/// Which modules each module uses.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let names: BTreeSet<_> = modules.keys().cloned().collect();
    let holds = |path: &str| {
        let mut path = path;
        loop {
            if names.contains(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::").map_or("", |(above, _)| above);
            if path.is_empty() {
                return Some("lib".to_owned());
            }
        }
    };
    let mut found = BTreeMap::new();
    for (own, text) in &modules {
        let prefix = format!("{own}::");
        let is_folder = names.iter().any(|name| name.starts_with(&prefix));
        let used = paths(own, is_folder, &code(text))
            .iter()
            .filter_map(|path| holds(path))
            .filter(|used| used != own)
            .collect();
        found.insert(own.clone(), used);
    }
    found
}

fn layer(module: &str) -> usize {
    let first = module.split("::").next().expect("a name");
    LAYERS
        .iter()
        .position(|row| row.contains(&first))
        .unwrap_or_else(|| panic!("src/{first} has no place in the order: give it one in tests/layers.rs"))
}

#[test]
fn arrows_go_down() {
    let mut upward = Vec::new();
    for (user, used) in uses() {
        for used in used.iter().filter(|used| layer(used) < layer(&user)) {
            upward.push(format!("{user} uses {used}, which stands above it"));
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// Groups of modules each of which can be reached from each other one of its group.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for used in &uses[module] {
                if seen.insert(used.clone()) {
                    next.push(used);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|module| (module, reached(module))).collect();
    let of = |module: &String| {
        reached[module].iter().filter(|other| reached[other].contains(module)).cloned().collect::<BTreeSet<_>>()
    };
    uses.keys().map(of).filter(|circle| circle.len() > 1).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let uses = uses();
    let found = circles(&uses);
    let mut forbidden = Vec::new();
    for circle in &found {
        if !CIRCLES.iter().any(|(folder, _)| is_in(circle, folder)) {
            forbidden.push(format!("a circle of {} files:", circle.len()));
            let arrow = |user: &String| uses[user].intersection(circle).cloned().collect::<Vec<_>>().join(", ");
            forbidden.extend(circle.iter().map(|user| format!("  {user} -> {}", arrow(user))));
        }
    }
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
    for (folder, reason) in CIRCLES {
        assert!(found.iter().any(|circle| is_in(circle, folder)), "{folder} has no circle any more ({reason})");
    }
}

fn is_in(circle: &BTreeSet<String>, folder: &str) -> bool {
    circle.iter().all(|file| file.split("::").next() == Some(folder))
}

/// The test sees what it is to see.
#[test]
fn paths_and_circles_are_found() {
    let text = "//! crate::a\nuse crate::b::c::D;\nuse crate::e::{self, F};\n#[cfg(doc)]\nuse crate::g;\nfn h() { super::i::j() } // crate::k\n\
                #[cfg(test)]\nmod tests {\n    use crate::l;\n}\n";
    assert_eq!(paths("x::y", false, &code(text)), ["b::c::D", "e", "e::F", "x::i::j"]);
    let to = |used: &[&str]| used.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let graph = [("a", to(&["b", "d"])), ("b", to(&["c"])), ("c", to(&["a"])), ("d", to(&[]))];
    let graph = graph.into_iter().map(|(name, used)| (name.to_owned(), used)).collect();
    assert_eq!(circles(&graph), [to(&["a", "b", "c"])]);
}
