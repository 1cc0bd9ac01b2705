//! The list of exports is the header that is checked in, and the shared object's symbol table.

mod kit;

use std::collections::BTreeSet;
use std::path::Path;

/// A function of the list.
struct Function {
    doc: &'static [&'static str],
    name: &'static str,
    arguments: &'static [(&'static str, &'static str)],
    /// One, or none.
    result: &'static [&'static str],
}

macro_rules! functions {
    ($($(#[doc = $doc:literal])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        &[$(Function {
            doc: &[$($doc),*],
            name: stringify!($name),
            arguments: &[$((stringify!($argument), stringify!($type))),*],
            result: &[$(stringify!($result))?],
        }),*]
    };
}

macro_rules! c_family {
    (standard { $($standard:tt)* } own { $($own:tt)* }
     aliases { $($alias:ident = $of:ident($($arguments:tt)*) $(-> $result:ty)?;)* }) => {
        const STANDARD: &[Function] = functions!($($standard)*);
        const OWN: &[Function] = functions!($($own)*);
        const ALIASES: &[&str] = &[$(stringify!($alias)),*];
    };
}

include!("../src/exports.rs");

/// A type as C writes it, up to the name that follows.
fn c_type(rust: &str) -> &'static str {
    match rust.replace("* ", "*").as_str() {
        "usize" => "size_t ",
        "c_int" => "int ",
        "*mut c_void" => "void *",
        "*mut *mut c_void" => "void **",
        "*const c_char" => "const char *",
        "*mut FILE" => "FILE *",
        "mallinfo" => "struct mallinfo ",
        "mallinfo2" => "struct mallinfo2 ",
        other => panic!("no C type for {other}"),
    }
}

fn declaration(function: &Function, prefix: &str) -> String {
    let result = function.result.first().map_or("void ", |result| c_type(result));
    let arguments: Vec<_> = function.arguments.iter().map(|(name, rust)| format!("{}{name}", c_type(rust))).collect();
    let arguments = if arguments.is_empty() { "void".into() } else { arguments.join(", ") };
    let doc: Vec<_> = function.doc.iter().map(|line| line.trim()).collect();
    format!("/* {} */\n{result}{prefix}{}({arguments});\n", doc.join("\n   "), function.name)
}

fn header() -> String {
    let functions: Vec<_> = STANDARD
        .iter()
        .map(|function| declaration(function, "perseq_"))
        .chain(OWN.iter().map(|function| declaration(function, "")))
        .collect();
    format!(
        "/* libperseq under names of its own; the standard names do the same. Written from preload/src/exports.rs by\n   \
         PERSEQ_TEST_BLESS=1 cargo test -p perseq-preload --test exports */\n\
         #ifndef PERSEQ_H\n#define PERSEQ_H\n\n#include <stddef.h>\n#include <stdio.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         #ifdef __GLIBC__\n/* Of <malloc.h>. */\nstruct mallinfo;\nstruct mallinfo2;\n#else\n\
         /* As in glibc's <malloc.h>. */\n{}{}#endif\n\n{}\n\
         #ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
        structure("mallinfo", "int"),
        structure("mallinfo2", "size_t"),
        functions.join("\n")
    )
}

/// One of the structures of src/structures.rs, as C has it.
fn structure(name: &str, number: &str) -> String {
    let fields = "arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost";
    format!("struct {name} {{ {number} {fields}; }};\n")
}

#[test]
fn the_header_is_the_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/perseq.h");
    if std::env::var_os("PERSEQ_TEST_BLESS").is_some() {
        std::fs::write(&path, header()).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the header is there");
    assert_eq!(found, header(), "PERSEQ_TEST_BLESS=1 cargo test -p perseq-preload --test exports writes it anew");
}

#[test]
fn the_symbols_are_the_list() {
    let library = kit::library().to_str().expect("a UTF-8 path");
    let output = kit::run(None, "nm", &["--dynamic", "--defined-only", "--format=just-symbols", library]);
    let found: BTreeSet<_> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    let operators = ["_Znwm", "_Znam"].into_iter().flat_map(|new| {
        ["", "RKSt9nothrow_t", "St11align_val_t", "St11align_val_tRKSt9nothrow_t"].map(|form| format!("{new}{form}"))
    });
    let deletes = ["_ZdlPv", "_ZdaPv"].into_iter().flat_map(|delete| {
        let forms = ["", "m", "RKSt9nothrow_t", "St11align_val_t", "mSt11align_val_t", "St11align_val_tRKSt9nothrow_t"];
        forms.map(|form| format!("{delete}{form}"))
    });
    let expected: BTreeSet<_> = STANDARD
        .iter()
        .flat_map(|function| [function.name.to_owned(), format!("perseq_{}", function.name)])
        .chain(OWN.iter().map(|function| function.name.to_owned()))
        .chain(ALIASES.iter().map(|name| (*name).to_owned()))
        .chain(["vfork", "clone"].map(str::to_owned))
        .chain(operators)
        .chain(deletes)
        .collect();
    let (more, less): (Vec<_>, Vec<_>) = (found.difference(&expected).collect(), expected.difference(&found).collect());
    assert!(more.is_empty() && less.is_empty(), "exported beyond the list: {more:?}; missing: {less:?}");
}

/// What is called most is the code itself, not a jump to a copy that the compiler found to be the same.
#[test]
fn malloc_and_free_are_no_jumps() {
    let library = kit::library().to_str().expect("a UTF-8 path");
    let output = kit::run(None, "nm", &["--dynamic", "--defined-only", "--print-size", library]);
    let text = String::from_utf8(output.stdout).expect("text");
    for name in ["malloc", "free"] {
        let line = text.lines().find(|line| line.split(' ').nth(3) == Some(name)).expect("the symbol");
        let size = line.split(' ').nth(1).and_then(|size| u64::from_str_radix(size, 16).ok()).expect("a size");
        assert!(size > 64, "{name} has {size} bytes of code");
    }
}
