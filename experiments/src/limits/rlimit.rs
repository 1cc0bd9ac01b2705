//! The limits themselves.

use nix::sys::resource::{Resource, setrlimit};

/// Sets a limit of this process: one system call, which a process may make before it becomes another program.
pub fn set(kind: Resource, bytes: u64) -> std::io::Result<()> {
    Ok(setrlimit(kind, bytes, bytes)?)
}
