//! Another process: its memory, read and never written, and what is mapped there.

use crate::failure::Failure;
use crate::mappings::Mapping;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::io::{ErrorKind, IoSliceMut};
use std::{fmt, fs};

/// A process that runs beside this one.
pub struct Process {
    id: Pid,
    /// What it calls itself; 15 letters at most.
    pub name: String,
}

/// Why memory of a process could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// There is no such process any more.
    Ended,
    /// It has no memory.
    Empty,
    /// This user may not.
    Refused,
    /// Nothing is mapped there.
    Unmapped,
    /// The kernel says something else.
    Other(Errno),
}

impl Process {
    /// The process of this number.
    pub fn new(id: i32) -> Result<Process, Failure> {
        let path = format!("/proc/{id}/comm");
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Process { id: Pid::from_raw(id), name: name.trim_end().to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Failure::usage(format!("process {id}: there is none")))
            }
            Err(error) => Err(Failure::host(format!("{path}: {error}"))),
        }
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.id.as_raw()
    }

    /// Fills `buffer` with what the process has at `address`.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unread> {
        let len = buffer.len();
        let there = RemoteIoVec { base: address as usize, len };
        match process_vm_readv(self.id, &mut [IoSliceMut::new(buffer)], &[there]) {
            Ok(read) if read == len => Ok(()),
            // A part of it: what comes after is not mapped.
            Ok(_) | Err(Errno::EFAULT) => Err(Unread::Unmapped),
            Err(Errno::ESRCH) => Err(Unread::Ended),
            Err(Errno::EPERM) => Err(Unread::Refused),
            Err(error) => Err(Unread::Other(error)),
        }
    }

    /// As [`Process::read`], of so many bytes.
    pub fn bytes(&self, address: u64, length: usize) -> Result<Vec<u8>, Unread> {
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes).map(|()| bytes)
    }

    /// What is mapped, by address.
    pub fn mappings(&self) -> Result<Vec<Mapping>, Unread> {
        let text = fs::read_to_string(format!("/proc/{}/maps", self.id)).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Unread::Refused,
            ErrorKind::NotFound => Unread::Ended,
            _ => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::ESRCH => Unread::Ended,
                other => Unread::Other(other),
            },
        })?;
        if text.is_empty() { Err(Unread::Empty) } else { Ok(text.lines().filter_map(Mapping::parse).collect()) }
    }

    /// What to say of it.
    pub fn failure(&self, why: &Unread) -> Failure {
        Failure::host(format!("{self}: {why}"))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.id, self.name)
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Ended => f.write_str("it has ended"),
            Unread::Empty => f.write_str("it has no memory: it has ended, or is a thread of the kernel's"),
            Unread::Refused => f.write_str(
                "this user may not read its memory: that takes the process's own user, and where \
                 /proc/sys/kernel/yama/ptrace_scope is not 0, root or CAP_SYS_PTRACE",
            ),
            Unread::Unmapped => f.write_str("its memory is not where its allocator says"),
            Unread::Other(error) => write!(f, "its memory cannot be read: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_read_itself_and_no_further() {
        let own = Process::new(std::process::id() as i32).unwrap();
        let word = 0x1234_5678_9abc_def0_u64;
        assert_eq!(own.bytes(&raw const word as u64, 8).unwrap(), word.to_ne_bytes());
        assert_eq!(own.bytes(4096, 8), Err(Unread::Unmapped));
        assert!(own.mappings().unwrap().iter().any(|mapping| mapping.executable));
        assert!(Process::new(-1).is_err());
    }
}
