//! A file descriptor as a [`Write`] that allocates nothing.

use core::fmt::{self, Write};

use rseq::syscall;

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
            let written =
                unsafe { syscall::call(libc::SYS_write, [self.file as usize, rest.as_ptr() as usize, rest.len()]) };
            match written {
                Ok(written @ 1..) => rest = &rest[written..],
                Err(libc::EINTR) => {}
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
