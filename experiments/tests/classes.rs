//! `perseq classes`: from a histogram to a table that perseq is built with.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

#[allow(dead_code)] // the build script uses the rest
#[path = "../../build/config.rs"]
mod config;

fn classes(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perseq")).arg("classes").args(arguments).output().expect("perseq starts")
}

/// 512 sizes, most of them small, a few beyond the largest class.
fn histogram() -> String {
    let mut text = String::from("size,count\n# a comment\n");
    for number in 1..=512u64 {
        writeln!(text, "{},{}", number * number / 6 + number, 1_000_000 / number).expect("a string");
    }
    text
}

#[test]
fn a_histogram_of_512_sizes_becomes_a_table_that_builds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("sizes.csv"), folder.path().join("table.toml"));
    std::fs::write(&input, histogram()).expect("a file of ours");
    let [input, output] = [&input, &output].map(|path| path.to_str().expect("UTF-8"));
    let found =
        classes(&[input, "--most", "48", "--waste", "15", "--align", "8", "--name", "squares", "--out", output]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let text = std::fs::read_to_string(output).expect("the table");
    let table = config::Config::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(table.name, "squares");
    assert!(table.classes.len() <= 48, "{text}");
    assert_eq!(table.classes.last().map(|class| class.size), Some(32 << 10));
    assert!(table.classes.iter().filter(|class| class.size > 4096).count() >= 8, "large classes stay: {text}");
    // The table wastes less than the default one, as its first lines say.
    let unused: Vec<f64> =
        text.lines().filter_map(|line| line.strip_suffix(" %.")?.rsplit(' ').next()?.parse().ok()).collect();
    assert!(unused.len() == 2 && unused[0] < unused[1], "{text}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let built = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--locked", "--package", "perseq", "--lib", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("chosen-classes"))
        .current_dir(root)
        .env("PERSEQ_BUILD_CONFIG", output)
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn wrong_input_is_exit_2_and_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file of ours");
        path.to_str().expect("UTF-8").to_owned()
    };
    let good = file("good.csv", &histogram());
    let cases: [(&[&str], &str); 8] = [
        (&["missing.csv"], "missing.csv: cannot read"),
        (
            &[&file("words.csv", "size,count\nten,2")],
            "words.csv:2: expected size,count as whole numbers, found \"ten,2\"",
        ),
        (&[&file("empty.csv", "size,count\n")], "empty.csv: expected at least one request"),
        (&[&good, "--most", "5"], "--most 5: at most 20 % of waste needs at least"),
        (&[&good, "--waste", "0"], "--waste 0: expected 1 to 90 per cent"),
        (&[&good, "--max-small", "5000"], "--max-small 5000: expected a power of two"),
        (&[&good, "--name", "a b"], "--name a b: expected letters"),
        (&[&good, "--align", "12"], "invalid value '12'"),
    ];
    for (arguments, expected) in cases {
        let output = classes(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
