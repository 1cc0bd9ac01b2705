//! The programs, what they need, and what is demanded of them.

/// A program that is run.
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What runs.
    pub script: &'static str,
    /// Commands that must be there.
    pub needs: &'static [&'static str],
    /// Debian packages that have them.
    pub packages: &'static [&'static str],
    /// Peak memory it may need, as a ratio to its peak on the C library.
    pub peak_limit: Option<f64>,
    /// What must be known to read its line.
    pub note: Option<&'static str>,
}

const fn program(
    name: &'static str,
    script: &'static str,
    needs: &'static [&'static str],
    packages: &'static [&'static str],
) -> Program {
    Program { name, script, needs, packages, peak_limit: None, note: None }
}

/// Every program.
pub const PROGRAMS: &[Program] = &[
    program("bash", include_str!("../../programs/bash.sh"), &["bash"], &["bash"]),
    Program { peak_limit: Some(1.3), ..program("perl", include_str!("../../programs/perl.sh"), &["perl"], &["perl"]) },
    program("python", include_str!("../../programs/python.sh"), &["python3"], &["python3", "libpython3.11-testsuite"]),
    program("git", include_str!("../../programs/git.sh"), &["git"], &["git"]),
    program("gcc", include_str!("../../programs/gcc.sh"), &["cc", "c++"], &["gcc", "g++"]),
    program("sqlite", include_str!("../../programs/sqlite.sh"), &["sqlite3"], &["sqlite3"]),
    program(
        "redis",
        include_str!("../../programs/redis.sh"),
        &["redis-server", "redis-benchmark"],
        &["redis-server", "redis-tools"],
    ),
    Program {
        note: Some("peak: without the server, which is not a descendant of the script"),
        ..program(
            "postgresql",
            include_str!("../../programs/postgresql.sh"),
            &["setpriv"],
            &["postgresql", "util-linux"],
        )
    },
    program("node", include_str!("../../programs/node.sh"), &["node"], &["nodejs"]),
    Program {
        note: Some("rustc brings a malloc of its own; cargo, the linker and build scripts run on the preloaded one"),
        ..program("cargo", include_str!("../../programs/cargo.sh"), &["cargo", "cc"], &["cargo", "gcc"])
    },
];

/// The program called `name`.
pub fn find(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}

impl Program {
    /// What is missing to run it.
    pub fn missing(&self) -> Option<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
        let missing = self.needs.iter().find(|name| !there(name))?;
        Some(format!("no `{missing}`; Debian: {}; --install installs it", self.packages.join(" ")))
    }

    /// Its line in a list.
    pub fn line(&self) -> String {
        let what = self.script.lines().next().unwrap_or_default().trim_start_matches("# ");
        let missing = self.missing().map_or_else(String::new, |missing| format!("\n{:12} missing: {missing}", ""));
        format!("{:12} {what}{missing}\n", self.name)
    }
}
