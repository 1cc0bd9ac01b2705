//! The end of a process that found a loss: one line, no allocation, no lock, no exit handler.
//!
//! The allocator under test may serve this very process, another thread may hold any lock, and the process may be a
//! forked child. So the line is made on the stack and written by one system call.

use nix::libc;
use std::fmt::{Arguments, Write};

/// Begins the line, for the runner to find.
pub const MARK: &str = "torture: fault: ";
/// Exit code of a process that found a loss.
pub const LOSS: i32 = 101;

/// Says what was lost and ends the process.
pub fn fault(what: Arguments<'_>) -> ! {
    let mut line = Line { bytes: [0; 512], length: 0 };
    // A line that is too long is cut, which is the one error there is.
    let _ = line.write_str(MARK);
    let _ = line.write_fmt(what);
    let _ = line.write_char('\n');
    line.bytes[line.length - 1] = b'\n';
    // SAFETY: the bytes are ours.
    unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.length) };
    // SAFETY: ends the process at once; nothing of a parent's runs twice.
    unsafe { libc::_exit(LOSS) }
}

struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let rest = &mut self.bytes[self.length..];
        let count = text.len().min(rest.len());
        rest[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}
