//! The order of the kit's files: each uses those below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Files and folders of `src`, from the highest to the lowest.
const ORDER: [&str; 17] = [
    "lib",
    "kit",
    "case",
    "player",
    "team",
    "signals",
    "judge",
    "stream",
    "books",
    "block",
    "subject",
    "operation",
    "ability",
    "system",
    "errno",
    "own",
    "verdict",
];

fn place(module: &str) -> usize {
    ORDER.iter().position(|other| *other == module).unwrap_or_else(|| panic!("{module} has no place in the order"))
}

/// The modules that a file's code names.
fn used(text: &str) -> BTreeSet<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a part"))
        .collect()
}

/// What a file uses and should not.
fn upward<'a>(own: &str, text: &'a str) -> Vec<&'a str> {
    used(text).into_iter().filter(|used| *used != own && place(used) < place(own)).collect()
}

#[test]
fn arrows_go_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut files) = (Vec::new(), 0);
    for entry in fs::read_dir(&folder).expect("src can be read").map(|entry| entry.expect("an entry").path()) {
        let own = entry.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        let inside = if entry.is_dir() {
            fs::read_dir(&entry).expect("it can be read").map(|entry| entry.expect("an entry").path()).collect()
        } else {
            vec![entry]
        };
        for file in inside {
            let text = fs::read_to_string(&file).expect("it can be read");
            files += 1;
            found.extend(upward(&own, &text).iter().map(|used| format!("{} uses {used}", file.display())));
        }
    }
    assert!(files >= ORDER.len() && found.is_empty(), "{files} files: {found:?}");
}

#[test]
fn an_arrow_that_goes_up_is_found() {
    let text = "use crate::own::Own;\nuse crate::kit::Kit; // crate\n// crate::case\nfn f() { crate::player::play() }\n#[cfg(test)]\nuse crate::team;";
    assert_eq!(upward("judge", text), ["kit", "player"]);
    assert_eq!(upward("lib", text), [""; 0]);
}
