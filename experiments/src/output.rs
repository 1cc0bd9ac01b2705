//! Standard output. A reader that has seen enough (`perseq list | head`) is not an error.

use crate::failure::Failure;
use std::io::{ErrorKind, Write};

/// Prints `text`.
pub fn print(text: &str) -> Result<(), Failure> {
    print_if_read(text).map(drop)
}

/// Prints `text`. False if nobody reads any more.
pub fn print_if_read(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::host(format!("standard output: {error}"))),
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::host(error.to_string()))?;
    print(&(json + "\n"))
}
