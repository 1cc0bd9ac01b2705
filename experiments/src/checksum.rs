//! SHA-256, in hexadecimal.

use sha2::{Digest, Sha256};
use std::path::Path;

/// The sum of these bytes.
pub fn of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sum of a file.
pub fn of_file(path: &Path) -> std::io::Result<String> {
    std::fs::read(path).map(|bytes| of(&bytes))
}
