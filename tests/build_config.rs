//! What `PERSEQ_BUILD_CONFIG` may name, and what it is told if it may not.

#[allow(dead_code)] // the build script uses the rest
#[path = "../build/config.rs"]
mod config;

use config::{Class, Config};

const DEFAULT: &str = include_str!("../build/default.toml");

#[test]
fn the_default_file_says_the_defaults() {
    let written = Config::parse(DEFAULT).expect("it is valid");
    let unwritten = Config::parse("name = \"default\"").expect("it is valid");
    assert_eq!(written, unwritten);
    let classes = written.classes;
    assert_eq!(classes.len(), 44);
    assert_eq!(classes[0], Class { size: 8, pages: 1, batch: 64 });
    assert_eq!(classes[43], Class { size: 32 << 10, pages: 16, batch: 2 });
}

#[test]
fn lists_and_tables() {
    let list = Config::parse("sizes = [64, 1024, 1152]\npage_size = 4096\n").expect("it is valid");
    assert_eq!(list.classes.iter().map(|class| class.size).collect::<Vec<_>>(), [64, 1024, 1152]);
    let tables = "[[class]]\nsize = 64\npages = 3\nbatch = 5\n[[class]]\nsize = 0x800\n";
    let tables = Config::parse(tables).expect("it is valid");
    assert_eq!(tables.classes[0], Class { size: 64, pages: 3, batch: 5 });
    assert_eq!(tables.classes[1], Class { size: 2048, pages: 1, batch: 8 });
}

/// One object in 32 that stays keeps less than a third of its class's pages, once objects are large enough for that.
#[test]
fn few_objects_keep_few_spans() {
    for class in Config::parse(DEFAULT).expect("it is valid").classes {
        let objects = class.pages * (8 << 10) / class.size;
        assert!(objects >= 4, "{class:?}");
        assert!(class.pages == 1 || objects * 3 < 32, "{class:?}");
    }
}

#[test]
fn errors_name_the_line_the_entry_and_what_was_expected() {
    let cases = [
        ("page_size = ", "line 1: TOML: "),
        ("\npage_sise = 1", "line 2: page_sise: expected name, sizes, class, page_size, "),
        ("page_size = 5000", "line 1: page_size: expected a power of two from 4096 to 1048576"),
        ("page_size = \"8K\"", "line 1: page_size: expected a power of two"),
        ("cache_bytes = -1", "line 1: cache_bytes: expected a whole number from 1"),
        ("cache_bytes = 1.5", "line 1: cache_bytes: expected a whole number"),
        ("sizes = 8", "line 1: sizes: expected a list"),
        ("sizes = []", "sizes: expected at least one"),
        ("sizes = [\n8,\n20,\n1024]", "line 3: 20: expected a multiple of 8"),
        ("sizes = [8, 1024, 1032]", "line 1: 1032: expected a multiple of 128"),
        ("sizes = [8, 4, 1024]", "line 1: sizes: expected a whole number from 8 to 262144"),
        ("sizes = [8,\n64,\n64,\n1024]", "line 3: class of 64 bytes: expected more than the size before, 64"),
        ("sizes = [8, 512]", "line 1: 512: expected the last size to be 1024 or more"),
        ("sizes = [1024]\nmax_small = 1024", "line 2: max_small: expected without sizes or class"),
        ("sizes = [1024]\n[[class]]\nsize = 8", "class: expected either sizes or class, not both"),
        ("class = [1]", "line 1: class: expected tables"),
        ("[[class]]\npages = 1", "class: expected a size"),
        ("[[class]]\nsize = 1024\nbach = 1", "line 3: bach: expected size, pages and batch"),
        (
            "[[class]]\nsize = 16384\npages = 1",
            "line 2: class of 16384 bytes: 1 pages of 8192 bytes: expected at least",
        ),
        ("[[class]]\nsize = 1024\npages = 4096", "1024 bytes: 4096 pages of 8192 bytes: expected at least"),
        ("[[class]]\nsize = 262144\npages = 1024", "class of 262144 bytes: expected a smaller span"),
        (
            "[[class]]\nsize = 8\npages = 100\n[[class]]\nsize = 1024",
            "102400 objects in a span: expected at most 65535",
        ),
        (
            "max_batch = 4\n[[class]]\nsize = 1024\nbatch = 5",
            "line 3: class of 1024 bytes: batch 5: expected at most max_batch, 4",
        ),
        ("name = \"\"", "line 1: name: expected a string of letters"),
        ("name = \"a\\\"b\"", "line 1: name: expected a string of letters"),
    ];
    for (text, expected) in cases {
        let error = Config::parse(text).expect_err(text);
        assert!(error.contains(expected), "{text:?}: {error:?}, expected {expected:?}");
        assert!(!error.contains('\n'), "one line: {error:?}");
    }
    let many: Vec<_> = (1..=256).map(|step| (step * 128).to_string()).collect();
    let error = Config::parse(&format!("sizes = [{}]", many.join(","))).expect_err("too many");
    assert!(error.contains("expected at most 254, found 256"), "{error}");
}

/// A build is told in the same words, and ends.
#[test]
fn a_build_with_a_bad_file_fails() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-config");
    std::fs::create_dir_all(&folder).expect("a folder of ours");
    let file = folder.join("bad.toml");
    std::fs::write(&file, "page_size = 1000").expect("a file of ours");
    let check = |path: &std::path::Path| {
        let output = std::process::Command::new(env!("CARGO"))
            .args(["check", "--quiet", "--package", "perseq", "--lib", "--target-dir"])
            .arg(folder.join("target"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PERSEQ_BUILD_CONFIG", path)
            .output()
            .expect("cargo starts");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (built, said) = check(&file);
    assert!(!built && said.contains("bad.toml: line 1: page_size: expected a power of two from 4096"), "{said}");
    let (built, said) = check(&folder.join("missing.toml"));
    assert!(!built && said.contains("missing.toml: No such file"), "{said}");
}
