//! Maps from the numbers of lines. The order of their entries is never asked for.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Multiplication by a large odd number: line numbers need no more, and the standard hasher takes longer than that.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineHasher(u64);

impl Hasher for LineHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product >> 32;
    }
}

/// What is known of each line, by its number.
pub type Lines<T> = HashMap<u64, T, BuildHasherDefault<LineHasher>>;
