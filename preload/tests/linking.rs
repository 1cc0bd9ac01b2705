//! libperseq, installed as documented, is linked into C and C++ programs: shared and static.

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs into a folder of the test's, once for each caller.
fn installed(name: &str) -> PathBuf {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // <folder>/release/libperseq.so, or <folder>/<target>/release/libperseq.so
    let depth = if std::env::var_os("CARGO_BUILD_TARGET").is_some() { 3 } else { 2 };
    let target = kit::library().ancestors().nth(depth).expect("a library in folders");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
    let output = Command::new("bash").arg(script).arg(&prefix).env("CARGO_TARGET_DIR", target).output();
    let output = output.expect("bash starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    prefix
}

/// Builds a program of this folder's against libperseq installed under `name`, and returns its path.
fn linked(name: &str, compiler: &str, source: &str, arguments: &[&str]) -> String {
    let prefix = installed(name);
    let text = |path: PathBuf| path.to_str().expect("a UTF-8 path").to_owned();
    let program = text(prefix.join("program"));
    let include = format!("-I{}", text(prefix.join("include")));
    let search = format!("-L{}", text(prefix.join("lib")));
    let rpath = format!("-Wl,-rpath,{}", text(prefix.join("lib")));
    let source = text(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source));
    let mut all = vec!["-Wall", "-Wextra", "-Werror", "-fno-builtin", "-o", &program, &include];
    let language = if compiler == "g++" { "c++" } else { "c" };
    all.extend(["-x", language, &source, "-x", "none"]);
    all.extend_from_slice(&[&search, &rpath]);
    all.extend_from_slice(arguments);
    kit::run(None, compiler, &all);
    program
}

/// The example in C, by the command that it names.
#[test]
fn the_example() {
    let program = linked("example", "cc", "../../examples/from_c.c", &["-lperseq"]);
    let output = Command::new(&program).env("PERSEQ_MODE", "percpu-lock").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (first, json) = said.split_once('\n').expect("two lines");
    assert_eq!(first, "a block of perseq's, 10240 bytes, mode percpu-lock");
    assert!(output.status.success() && json.starts_with("{\"perseq\":"), "{said}");
}

/// Builds `linking.c` with `compiler`, if that is installed, and runs it in every mode.
fn links_and_runs(name: &str, compiler: &'static str, arguments: &[&str]) {
    if compiler != "cc" && !kit::is_installed(compiler, "linking from C++") {
        return;
    }
    let program = linked(name, compiler, "linking.c", arguments);
    for mode in kit::MODES {
        let output =
            Command::new(&program).env_remove("LD_LIBRARY_PATH").env("PERSEQ_MODE", mode).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{mode}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let (json, last) = said.trim_end().rsplit_once('\n').expect("two lines");
        assert!(json.starts_with("{\"perseq\":") && json.contains(&format!("\"requested_mode\":\"{mode}\"")), "{said}");
        assert_eq!(last, mode, "{said}");
    }
}

#[test]
fn shared_from_c() {
    links_and_runs("shared-c", "cc", &["-lperseq"]);
}

#[test]
fn shared_from_cxx() {
    if !kit::is_glibc("linking from C++", "the C++ compiler here is glibc's") {
        return;
    }
    links_and_runs("shared-cxx", "g++", &["-lperseq"]);
}

#[test]
fn static_from_c() {
    links_and_runs("static-c", "cc", &["-Wl,-Bstatic", "-lperseq", "-Wl,-Bdynamic"]);
}

#[test]
fn static_from_cxx() {
    if !kit::is_glibc("linking from C++", "the C++ compiler here is glibc's") {
        return;
    }
    links_and_runs("static-cxx", "g++", &["-Wl,-Bstatic", "-lperseq", "-Wl,-Bdynamic"]);
}

/// With the C library linked statically as well. It warns that `dlsym`, which is for C++, will not find anything.
#[test]
fn static_altogether() {
    links_and_runs("static-all", "cc", &["-static", "-lperseq"]);
}

/// The prefixed names are libperseq's also where the standard ones are somebody else's.
#[test]
fn beside_another_allocator() {
    let program = linked("both", "cc", "both.c", &["-lperseq"]);
    assert_eq!(kit::run(None, &program, &[]).stdout, b"both\n");
}
