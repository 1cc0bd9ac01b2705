//! `asm/README.md` names every label and every operand that the sequences' files use, and no sequence is missing on
//! either architecture.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm").join(path);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn files(architecture: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm").join(architecture);
    let entries = fs::read_dir(folder).expect("a folder of sequences");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect()
}

/// What stands between braces in `text`, without the modifier behind a colon.
fn operands(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')?.0.split(':').next())
}

/// The label a line begins with.
fn label(line: &str) -> Option<&str> {
    line.split_once(':').map(|(label, _)| label).filter(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn labels_and_operands_are_in_the_specification() {
    let text = read("README.md");
    let (_, section) = text.split_once("\n## Labels and operands\n").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    // The first cells of its tables, which may name several.
    let named: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let mut used = BTreeSet::new();
    for architecture in ["x86_64", "aarch64"] {
        for file in files(architecture) {
            let text = read(&format!("{architecture}/{file}"));
            let names: Vec<_> = operands(&text).chain(text.lines().filter_map(label)).map(str::to_owned).collect();
            for name in names {
                assert!(named.contains(&*name), "{architecture}/{file}: `{name}` is not in asm/README.md");
                used.insert(name);
            }
        }
    }
    let unused: Vec<_> = named.into_iter().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "asm/README.md names what no file uses: {unused:?}");
}

#[test]
fn every_sequence_is_there_for_both_architectures_and_described() {
    let (here, there) = (files("x86_64"), files("aarch64"));
    assert_eq!(here, there);
    let text = read("README.md");
    for file in here {
        let name = file.strip_suffix(".s").expect("assembly");
        assert!(text.contains(&format!("| `{name}` |")) || text.contains(&file), "{file} is not in asm/README.md");
    }
}

/// A call of libc's can be replaced by whatever is loaded before it, and may be a point where a thread is cancelled.
#[test]
fn the_crate_calls_no_other_function_of_libc() {
    fn look(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look(&path, found);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.split("#[cfg(test)]\nmod tests").next().expect("what is before");
                let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                for rest in code.split("libc::").skip(1) {
                    let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
                    let name = name.expect("a name");
                    if rest[name.len()..].starts_with('(') {
                        let file = path.file_name().expect("a file").to_string_lossy();
                        found.push(format!("{file}: {name}"));
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    // Keys of thread-specific data are for C libraries other than glibc, and are no cancellation points. `getauxval` is no
    // system call: it reads what the kernel put on the first stack. Asked by `probe`.
    let keys =
        ["pthread_key_create", "pthread_key_delete", "pthread_setspecific"].map(|name| format!("own.rs: {name}"));
    assert_eq!(found.split_last(), Some((&"thread.rs: getauxval".to_owned(), &keys as &[_])));
}
