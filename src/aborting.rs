//! For unit tests of what ends the process: the test runs again in a process of its own.

extern crate std;

const ROLE: &str = "PERSEQ_TEST_ABORTS";

/// Asserts that `wrong` ends the process with a line of perseq's that contains `line`. `test` is the full name of the test
/// that calls this.
pub fn must_abort(test: &str, line: &str, wrong: impl FnOnce()) {
    if std::env::var_os(ROLE).is_some() {
        return wrong();
    }
    let this = std::env::current_exe().expect("the path of this binary");
    let mut command = std::process::Command::new(this);
    command.args([test, "--exact", "--nocapture"]).env(ROLE, "1");
    let output = command.output().expect("it starts");
    let errors = std::string::String::from_utf8_lossy(&output.stderr).into_owned();
    let said = errors.lines().any(|said| said.starts_with("perseq: ") && said.contains(line));
    assert!(!output.status.success() && said, "expected {line:?}: {}: {errors}", output.status);
}
