//! The C family keeps the promises of POSIX, C23 and glibc, in every mode.

mod kit;

use std::path::Path;

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
