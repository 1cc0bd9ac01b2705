//! A file descriptor as a [`Write`] that allocates nothing.

use core::fmt::{self, Write};

use crate::errno::keep_errno;

/// A file descriptor, through a small buffer on the stack: a [`Write`] that allocates nothing.
#[derive(Debug)]
pub struct FileWriter {
    file: i32,
    length: usize,
    buffer: [u8; 1024],
}

impl FileWriter {
    /// Writes to `file`, an open descriptor.
    #[must_use]
    pub fn new(file: i32) -> Self {
        FileWriter { file, length: 0, buffer: [0; 1024] }
    }

    /// Writes what is in the buffer. Dropping does too, without a word about errors.
    ///
    /// # Errors
    ///
    /// The descriptor takes no more.
    pub fn flush(&mut self) -> fmt::Result {
        let mut rest = &self.buffer[..core::mem::take(&mut self.length)];
        while !rest.is_empty() {
            // SAFETY: `rest` is live memory of its length.
            let written = keep_errno(|| unsafe {
                let written = libc::write(self.file, rest.as_ptr().cast(), rest.len());
                if written < 0 { -i64::from(*libc::__errno_location()) } else { written as i64 }
            });
            match written {
                1.. => rest = &rest[written as usize..],
                _ if written == -i64::from(libc::EINTR) => {}
                _ => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

impl Write for FileWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            if self.length == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.length);
            self.buffer[self.length..self.length + count].copy_from_slice(&bytes[..count]);
            self.length += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let _ = self.flush(); // nobody is left to tell
    }
}
