//! The C family keeps the promises of POSIX, C23 and glibc, in every mode.

mod kit;

use std::path::Path;
use std::process::Command;

#[test]
fn c_family_conforms() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let program = program.to_str().expect("a UTF-8 path");
    // Without builtins, so that the compiler does not remove pairs of calls.
    kit::run(None, "cc", &["-std=gnu11", "-Wall", "-fno-builtin", "-pthread", "-o", program, source]);
    for mode in kit::MODES {
        let output = kit::run(Some(mode), program, &[]);
        let said = String::from_utf8(output.stdout).expect("text");
        let (xml, said) =
            said.split_once("--- malloc_info\n").and_then(|(_, rest)| rest.split_once("---\n")).expect("XML");
        assert_eq!(said, "conforms\n", "mode {mode}");
        let document = roxmltree::Document::parse(xml).unwrap_or_else(|error| panic!("mode {mode}: {error}: {xml}"));
        let system = document.descendants().find(|node| node.has_tag_name("system")).expect("an element");
        let size: u64 = system.attribute("size").and_then(|size| size.parse().ok()).expect("bytes");
        assert!(size > 0 && document.root_element().has_tag_name("malloc"), "mode {mode}: {xml}");
        let stats = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            stats.contains("committed_bytes") && stats.contains(&format!("mode                 {mode}")),
            "{stats}"
        );
    }
}

/// What the suites of glibc, Bionic, LTP and other allocators expect beyond the standards: in every mode, and hardened.
/// The C library's own malloc is the control.
#[test]
fn the_expectations_of_other_suites_are_met() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interfaces.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interfaces");
    let program = program.to_str().expect("a UTF-8 path");
    kit::run(None, "cc", &["-std=gnu11", "-w", "-O1", "-fno-builtin", "-pthread", "-o", program, source]);
    if kit::is_glibc("the control", "another libc has not all of these functions") {
        assert_eq!(kit::run(None, program, &["glibc"]).stdout, b"as expected\n");
    }
    for mode in kit::MODES {
        assert_eq!(String::from_utf8_lossy(&kit::run(Some(mode), program, &[]).stdout), "as expected\n", "mode {mode}");
    }
    let hardened = Command::new(program).env("LD_PRELOAD", kit::library()).env("PERSEQ_HARDENED", "1").output();
    assert_eq!(String::from_utf8_lossy(&hardened.expect("it starts").stdout), "as expected\n", "hardened");
}

/// A program begins with the least hard limit and the smallest caches that are taken; what is less is refused.
#[test]
fn the_least_bytes_that_are_taken_are_enough() {
    if !kit::is_glibc("the least limits", "the programs here run on glibc") {
        return;
    }
    for (mode, hardened) in kit::MODES.map(|mode| (mode, "0")).into_iter().chain([("central", "1")]) {
        for (name, least, less) in
            [("PERSEQ_HARD_LIMIT", "1M", "1K"), ("PERSEQ_TOTAL_BYTES", "4K", "1"), ("PERSEQ_CACHE_BYTES", "4K", "1")]
        {
            let begin = |value: &str| {
                let mut command = Command::new("sort");
                command.arg("/etc/passwd").env("LD_PRELOAD", kit::library()).env("PERSEQ_MODE", mode);
                command.env("PERSEQ_HARDENED", hardened).env(name, value).output().expect("sort starts")
            };
            let output = begin(least);
            assert!(output.status.success(), "{mode}, hardened {hardened}, {name}={least}: {output:?}");
            let output = begin(less);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let refusal = format!("perseq: {name}={less}: expected bytes, at least {least}");
            assert!(!output.status.success() && said.starts_with(&refusal), "{mode}: {said}");
        }
    }
}
