//! What `install.sh` and `debian.sh` put where, found again by those who look for it there.

mod kit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SOURCE: &str = "#include <perseq.h>\nint main(void) { return puts(perseq_version()) < 0; }\n";

/// What a command prints, which must end well.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A script of this package's, run in `folder`. It finds the library built.
fn script(name: &str, folder: &Path) -> Command {
    let target = kit::library().parent().and_then(Path::parent).expect("target/release/libperseq.so");
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).current_dir(folder).env("CARGO_TARGET_DIR", target);
    command
}

/// A folder of one test's, empty.
fn empty(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] }).collect()
}

/// A relative prefix below a DESTDIR with a blank, moved afterwards: what pkg-config says holds where it lies.
#[test]
fn what_pkg_config_says_builds_a_program_wherever_the_whole_was_moved() {
    if !kit::is_installed("pkg-config", "the installed perseq.pc") {
        return;
    }
    let folder = empty("pkg-config");
    let stage = folder.join("a stage");
    succeeds(script("install.sh", &folder).arg("my/prefix").env("DESTDIR", &stage));
    let (staged, moved) = (stage.join(folder.strip_prefix("/").expect("a whole path")), folder.join("moved"));
    fs::rename(staged.join("my/prefix"), &moved).expect("moved");
    let lib = moved.join("lib");
    // As a shell reads it: blanks in paths are escaped.
    let pkg_config = |argument: &str| {
        let path = lib.join("pkgconfig");
        let script = "eval \"printf '%s\\n' $(pkg-config \"$0\" perseq)\"";
        let said = succeeds(Command::new("sh").args(["-c", script, argument]).env("PKG_CONFIG_PATH", path));
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(pkg_config("--modversion"), [VERSION]);
    fs::write(folder.join("version.c"), SOURCE).expect("a source file");
    let flags = [pkg_config("--cflags"), pkg_config("--libs")].concat();
    succeeds(Command::new("cc").args(["-o", "version", "version.c"]).args(flags).current_dir(&folder));
    let program = folder.join("version");
    assert_eq!(succeeds(Command::new(&program).env("LD_LIBRARY_PATH", &lib)).trim(), VERSION);
    // It asks for the name that stays when the version does not.
    let needed = succeeds(Command::new("readelf").arg("-d").arg(&program));
    assert!(needed.contains("[libperseq.so.0]"), "{needed}");

    succeeds(script("install.sh", &folder).args(["--uninstall", "moved"]));
    assert_eq!(files(&moved), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(&moved).expect("the prefix").count(), 0, "no folder is left");
}

/// What `install.sh` says when it refuses, with the exit code.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_built() {
    let folder = empty("refused");
    fs::write(folder.join("file"), "").expect("a file");
    for (arguments, code, words) in [
        (&["one", "two"][..], 2, "two: one PREFIX was expected, and one was given"),
        (&["--unistall", "one"], 2, "--unistall: no such option"),
        (&[""], 2, "expected a PREFIX"),
        (&["file/prefix"], 1, "file: expected a folder"),
        (&["--uninstall", "one"], 1, "nothing of libperseq is under"),
    ] {
        let (found, said) = refused(script("install.sh", &folder).args(arguments).env("PATH", "/usr/bin:/bin"));
        assert!(found == Some(code) && said.contains(words), "{arguments:?}: {found:?}, {said}");
    }
    let no_tools = empty("no-tools");
    for tool in ["bash", "dirname", "head", "id", "realpath", "rm", "sed"] {
        let found = succeeds(Command::new("bash").args(["-c", "type -P \"$0\"", tool]));
        std::os::unix::fs::symlink(found.trim(), no_tools.join(tool)).expect("a link");
    }
    let (found, said) = refused(script("install.sh", &folder).arg("prefix").env("PATH", &no_tools));
    assert!(found == Some(1) && said.contains("no cargo in PATH") && said.contains("--built"), "{found:?}, {said}");
    let (found, said) =
        refused(script("install.sh", &folder).args(["--built", "prefix"]).env("CARGO_TARGET_DIR", "/file"));
    assert!(found == Some(1) && said.contains("/file/release/libperseq.so: no such file"), "{found:?}, {said}");
    assert_eq!(files(&folder), [folder.join("file")]);
    assert!(!folder.join("prefix").exists(), "nothing was made");
    let help = succeeds(script("install.sh", &folder).arg("--help"));
    assert!(help.contains("--uninstall [PREFIX]") && help.contains("DESTDIR"), "{help}");
}

/// No room for one of the files, which a limit on a file's length stands for.
#[test]
fn what_fails_half_way_leaves_all_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let folder = empty("half-way");
    let prefix = folder.join("prefix & more");
    let install = |limits: &str| {
        let plain = script("install.sh", &folder);
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("{limits}; exec bash \"$@\""), "bash"]).args(plain.get_args());
        limited.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.arg("--built").arg(&prefix).current_dir(&folder);
        limited
    };
    // Everybody can read it, whatever the one who installs hides by habit.
    succeeds(&mut install("umask 077"));
    let found = files(&prefix);
    for path in &found {
        let mode = fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o044, 0o044, "{}: {mode:o}", path.display());
    }
    let header = prefix.join("include/perseq.h");
    fs::write(&header, "of another version").expect("a file");
    let (code, said) = refused(&mut install("ulimit -f 2000"));
    assert!(code != Some(0) && said.contains("nothing was installed: all is as it was"), "{code:?}, {said}");
    assert_eq!(fs::read_to_string(&header).expect("a file"), "of another version");
    assert_eq!(files(&prefix).len(), found.len(), "nothing is left of the attempt");
    succeeds(&mut install("true"));
    assert_ne!(fs::read_to_string(&header).expect("a file"), "of another version");
}

#[test]
fn what_cmake_finds_builds_a_program() {
    if !kit::is_installed("cmake", "the installed CMake configuration") {
        return;
    }
    let folder = empty("cmake");
    succeeds(script("install.sh", &folder).arg("prefix"));
    fs::write(folder.join("version.c"), SOURCE).expect("a source file");
    let lists = "cmake_minimum_required(VERSION 3.10)\nproject(version C)\nfind_package(perseq 0.1 REQUIRED)\n\
                 foreach(kind shared static)\nadd_executable(${kind} version.c)\n\
                 target_link_libraries(${kind} perseq::${kind})\nendforeach()\n";
    fs::write(folder.join("CMakeLists.txt"), lists).expect("a source file");
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", folder.join("prefix").display());
    succeeds(Command::new("cmake").args(["-S", ".", "-B", "build", &prefix]).current_dir(&folder));
    succeeds(Command::new("cmake").args(["--build", "build"]).current_dir(&folder));
    for kind in ["shared", "static"] {
        assert_eq!(succeeds(&mut Command::new(folder.join("build").join(kind))).trim(), VERSION, "{kind}");
    }
}

/// Installed by dpkg into a system of its own, and taken away again.
#[test]
fn a_debian_package_is_installed_and_removed() {
    if !kit::is_installed("dpkg-deb", "the Debian package") {
        return;
    }
    let folder = empty("debian");
    succeeds(script("debian.sh", &folder).arg("out"));
    let package = files(&folder.join("out")).pop().expect("a package");
    let root = folder.join("root");
    for name in ["updates", "info"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(name)).expect("a folder");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("a file");
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display())).args(["--force-not-root", "--force-depends"]);
        succeeds(command.args(["--force-bad-path", "--log=/dev/null"]).args(arguments))
    };
    dpkg(&["--install", package.to_str().expect("a path in UTF-8")]);
    let library = root.join("usr/lib/libperseq.so.0");
    let mut program = Command::new("ls");
    let preloaded = kit::preloadable::preloadable(library.clone());
    let output =
        program.arg("/").env("LD_PRELOAD", &preloaded).env("PERSEQ_STATS", "json").output().expect("ls starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("{\"perseq\":"), "{said}");
    for file in ["include/perseq.h", "share/man/man3/libperseq.3.gz", "share/doc/libperseq/copyright"] {
        assert!(root.join("usr").join(file).is_file(), "{file}");
    }
    dpkg(&["--purge", "libperseq"]);
    assert!(!library.exists() && !root.join("usr/include/perseq.h").exists());
}

#[test]
fn the_manual_page_names_every_option() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [page, readme] = ["libperseq.3", "../README.md"].map(|name| fs::read_to_string(folder.join(name)).expect(name));
    let options: Vec<_> =
        readme.lines().filter_map(|line| line.strip_prefix("| `PERSEQ_")?.split('`').next()).collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        assert!(page.contains(&format!(".B PERSEQ_{option}\n")), "libperseq.3 lacks PERSEQ_{option}");
    }
}
