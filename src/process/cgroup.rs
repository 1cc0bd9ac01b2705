//! How much memory this process may have, as far as the kernel says it: the least of the physical memory and the limits
//! of its memory control group and of those above it. Read with plain system calls, only if a limit is given in
//! percent.
//!
//! Both versions of control groups are looked up where every distribution and container mounts them:
//! `/sys/fs/cgroup`, and `/sys/fs/cgroup/memory` for version 1. In a container that sees its group as the root, while
//! `/proc/self/cgroup` names it by the host's path, files below that path do not exist, and the root's is the one.

use core::ffi::CStr;

use rseq::kernel;

use crate::message::message;
use crate::os;

/// Bytes this process may have. Says so if the control group's limit cannot be read, and counts the physical memory.
pub fn available_memory() -> usize {
    let limit = group_limit(&mut read_file).unwrap_or_else(|| {
        message(&[
            "a limit in percent: the control group cannot be read in /proc and /sys, so it is of the physical memory",
        ]);
        usize::MAX
    });
    match os::physical_memory() {
        0 => limit,
        physical => limit.min(physical),
    }
}

/// Reads the file at a path that ends with 0 into a buffer; how many bytes.
type Read<'a> = dyn FnMut(&[u8], &mut [u8]) -> Option<usize> + 'a;

/// The least limit from this process's group up to the root; `usize::MAX` if there is none, `None` if nothing can be
/// read.
fn group_limit(read: &mut Read<'_>) -> Option<usize> {
    let mut text = [0; 8192];
    let length = read(b"/proc/self/cgroup\0", &mut text)?;
    let (mut least, mut known) = (usize::MAX, false);
    for line in text[..length].split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let limit = if controllers.is_empty() {
            known |= read(b"/sys/fs/cgroup/cgroup.controllers\0", &mut [0; 256]).is_some();
            least_upwards(b"/sys/fs/cgroup", path, b"/memory.max\0", read)
        } else if controllers.split(|byte| *byte == b',').any(|name| name == b"memory") {
            least_upwards(b"/sys/fs/cgroup/memory", path, b"/memory.limit_in_bytes\0", read)
        } else {
            continue;
        };
        known |= limit.is_some();
        least = limit.map_or(least, |limit| limit.min(least));
    }
    known.then_some(least)
}

/// The least limit of the group at `path` and those above it. `None` if none of them has such a file.
fn least_upwards(mount: &[u8], path: &[u8], file: &[u8], read: &mut Read<'_>) -> Option<usize> {
    let (mut least, mut rest) = (None, path.strip_suffix(b"/").unwrap_or(path));
    loop {
        let mut name = [0; 4096];
        let mut text = [0; 64];
        if let Some(length) = join(&mut name, [mount, rest, file]).and_then(|name| read(name, &mut text)) {
            least = Some(least.unwrap_or(usize::MAX).min(number(&text[..length])));
        }
        if rest.is_empty() {
            return least;
        }
        rest = &rest[..rest.iter().rposition(|byte| *byte == b'/').unwrap_or(0)];
    }
}

fn join<'a>(buffer: &'a mut [u8], parts: [&[u8]; 3]) -> Option<&'a [u8]> {
    let mut length = 0;
    for part in parts {
        buffer.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    Some(&buffer[..length])
}

/// A limit; none is `max` in version 2 and more than any memory in version 1.
fn number(text: &[u8]) -> usize {
    core::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usize::MAX)
}

fn read_file(path: &[u8], buffer: &mut [u8]) -> Option<usize> {
    kernel::read_file(CStr::from_bytes_until_nul(path).ok()?, buffer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit on a machine with these files.
    fn limit(files: &[(&str, &str)]) -> Option<usize> {
        group_limit(&mut |path, buffer| {
            let (_, text) = files.iter().find(|(name, _)| name.as_bytes() == &path[..path.len() - 1])?;
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Some(text.len())
        })
    }

    const CONTROLLERS: (&str, &str) = ("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");

    #[test]
    fn the_least_limit_upwards_counts() {
        let version_2 = |own, above| {
            limit(&[
                ("/proc/self/cgroup", "0::/user.slice/job\n"),
                CONTROLLERS,
                ("/sys/fs/cgroup/user.slice/job/memory.max", own),
                ("/sys/fs/cgroup/user.slice/memory.max", above),
            ])
        };
        assert_eq!(version_2("1000\n", "max\n"), Some(1000));
        assert_eq!(version_2("max\n", "2000\n"), Some(2000));
        assert_eq!(version_2("3000\n", "2000\n"), Some(2000));
        assert_eq!(version_2("max\n", "max\n"), Some(usize::MAX));
        let version_1 = limit(&[
            ("/proc/self/cgroup", "9:name=systemd:/\n4:hugetlb,memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n"),
            ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "67108864\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "1\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(version_1, Some(64 << 20));
    }

    #[test]
    fn a_container_finds_its_group_at_the_root() {
        let files =
            [("/proc/self/cgroup", "0::/docker/0123abcd\n"), CONTROLLERS, ("/sys/fs/cgroup/memory.max", "536870912\n")];
        assert_eq!(limit(&files), Some(512 << 20));
        assert_eq!(
            limit(&[("/proc/self/cgroup", "0::/\n"), CONTROLLERS]),
            Some(usize::MAX),
            "the real root has no limit"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_no_limit() {
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[("/proc/self/cgroup", "0::/a\n4:memory:/b\n")]), None);
        assert_eq!(limit(&[("/proc/self/cgroup", "nonsense\n\n::\n")]), None);
    }
}
