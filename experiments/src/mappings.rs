//! What is mapped in a process, as the kernel writes it in `/proc/PID/maps`.

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub writable: bool,
    pub executable: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// Device and inode, as the kernel writes them.
    pub identity: String,
    /// A path, a name of the kernel's such as `[vdso]`, or nothing.
    pub file: String,
}

impl Mapping {
    /// Reads a line. None: it makes no sense.
    pub fn parse(line: &str) -> Option<Mapping> {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after.trim_start();
            word
        };
        let (range, rights, offset, device, inode) = (word(), word(), word(), word(), word());
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            writable: rights.contains('w'),
            executable: rights.contains('x'),
            offset: number(offset)?,
            identity: format!("{device} {inode}"),
            file: rest.to_owned(),
        })
    }

    /// Whether it is of a file.
    pub fn is_of_file(&self) -> bool {
        !self.identity.ends_with(" 0") && !self.file.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = "7f12a0000000-7f12a0003000 rw-p 001e0000 fe:01 4711                   /usr/lib/my lib.so (deleted)";
        let found = Mapping::parse(line).unwrap();
        assert_eq!((found.start, found.end, found.offset), (0x7f12_a000_0000, 0x7f12_a000_3000, 0x1e_0000));
        assert_eq!((found.writable, found.executable, found.is_of_file()), (true, false, true));
        assert_eq!((found.identity.as_str(), found.file.as_str()), ("fe:01 4711", "/usr/lib/my lib.so (deleted)"));
        for of_no_file in ["7ffd-7ffe r-xp 00000000 00:00 0       [vdso]", "7ffd-7ffe rw-p 00000000 00:00 0 "] {
            assert!(!Mapping::parse(of_no_file).unwrap().is_of_file(), "{of_no_file}");
        }
        assert!(Mapping::parse("7ffd-7ffe r-xp 00000000 fe:01 10 /a").unwrap().is_of_file());
        for wrong in ["", "x", "7ffd7ffe rw-p 00000000 00:00 0 ", "7ffd-7ffe rw-p"] {
            assert_eq!(Mapping::parse(wrong), None, "{wrong}");
        }
    }
}
