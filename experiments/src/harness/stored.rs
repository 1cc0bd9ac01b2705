//! A file of lines as it lies in the directory of a run: plain, compressed, or compressed in parts.
//!
//! Parts are numbered, `samples-01.jsonl.gz` and on. Each holds whole lines, and one after the other they are the file.
//! None is large: who keeps a run beside its source stores every version of each file.

use crate::checksum;
use crate::compressed::{self, ENDINGS};
use crate::failure::Failure;
use crate::written;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a compressed part, at most.
const PART: usize = 3 << 19;

/// A file of lines and its copies.
pub struct Stored<'a> {
    root: &'a Path,
    /// The name of the plain file.
    name: &'static str,
    /// What it holds, for messages.
    what: &'static str,
}

impl<'a> Stored<'a> {
    /// The file called `name` in `root`.
    pub fn new(root: &'a Path, name: &'static str, what: &'static str) -> Stored<'a> {
        Stored { root, name, what }
    }

    /// Where the plain file lies, or would.
    pub fn plain(&self) -> PathBuf {
        self.root.join(self.name)
    }

    /// The contents. An error if there is nothing, or if copies of it differ.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        self.of(&self.files()?)
    }

    /// The names of the files that are read, in order: a plain one before compressed ones. Beside it there may be a compressed
    /// copy: who compresses may be interrupted before the plain one is removed, and who unpacks may keep both.
    pub fn files(&self) -> Result<Vec<String>, Failure> {
        let copies = self.copies();
        let Some((first, others)) = copies.split_first() else { return Ok(vec![self.name.to_owned()]) };
        let same = || {
            let whole = self.of(first).ok()?;
            // Of several parts, the last ones may not be written yet.
            let fits = |copy: &Vec<String>| {
                let bytes = self.of(copy).ok()?;
                let begun = numbered(&copy[0]) && bytes.ends_with(b"\n") && whole.starts_with(&bytes);
                (bytes == whole || begun).then_some(())
            };
            others.iter().try_for_each(fits)
        };
        if others.is_empty() || (first.as_slice() == [self.name] && same().is_some()) {
            return Ok(first.clone());
        }
        let (root, what) = (self.root.display(), self.what);
        let several: Vec<_> = copies.iter().map(|copy| copy.join(", ")).collect();
        let several = several.join(" and ");
        Err(Failure::usage(format!("{root}: {several}; expected one file of {what}, or the same {what} in each")))
    }

    /// Compresses the plain file, into parts if one would be large, and removes it.
    pub fn pack(&self) -> Result<(), Failure> {
        let bytes = self.read()?;
        let fail = |error| Failure::file(&self.plain(), "compress", error);
        let mut parts = vec![compressed::gzip(&bytes).map_err(fail)?];
        let mut count = 1;
        while parts.iter().any(|part| part.len() > PART) && count < 99 {
            count = parts.iter().map(Vec::len).sum::<usize>().div_ceil(PART).max(count + 1).min(99);
            parts = split(&bytes, count).into_iter().map(compressed::gzip).collect::<Result<_, _>>().map_err(fail)?;
        }
        let names: Vec<_> = match parts.len() {
            1 => vec![format!("{}.gz", self.name)],
            many => (1..=many).map(|number| self.part(number) + ".gz").collect(),
        };
        for (name, part) in names.iter().zip(&parts) {
            written::whole(&self.root.join(name), part)?;
        }
        self.remove(|name| !names.iter().any(|kept| kept == name))
    }

    /// Leaves the plain file alone, or nothing if there is nothing.
    pub fn unpack(&self) -> Result<(), Failure> {
        let files = self.files()?;
        if files != [self.name] {
            written::whole(&self.plain(), &self.of(&files)?)?;
        }
        self.remove(|name| name != self.name)
    }

    /// Whether `sums` are of what is there. Who compresses a file does not change it, nor who unpacks it beside the compressed
    /// one.
    pub fn summed(&self, sums: &dyn Fn(&str) -> Option<String>) -> Result<bool, Failure> {
        let whole = self.read()?;
        let named = |copy: &Vec<String>| {
            let told = |name: &String| {
                sums(name).is_some_and(|sum| checksum::of_file(&self.root.join(name)).is_ok_and(|found| found == sum))
            };
            copy.iter().all(told) && self.of(copy).is_ok_and(|bytes| bytes == whole)
        };
        Ok(sums(self.name) == Some(checksum::of(&whole)) || self.copies().iter().any(named))
    }

    /// The copies that there are, the plain one first, each by its files in order.
    fn copies(&self) -> Vec<Vec<String>> {
        let plain_or_packed = [""].into_iter().chain(ENDINGS).map(|ending| vec![format!("{}{ending}", self.name)]);
        let whole = plain_or_packed.filter(|names| self.there(&names[0]));
        let parts = ENDINGS.map(|ending| {
            let names = (1..=99).map(|number| self.part(number) + ending);
            names.take_while(|name| self.there(name)).collect::<Vec<_>>()
        });
        whole.chain(parts.into_iter().filter(|names| !names.is_empty())).collect()
    }

    fn there(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    fn part(&self, number: usize) -> String {
        let (stem, ending) = self.name.split_once('.').unwrap_or((self.name, ""));
        format!("{stem}-{number:02}.{ending}")
    }

    /// Some files, one after the other.
    fn of(&self, names: &[String]) -> Result<Vec<u8>, Failure> {
        let read = |name: &String| {
            let path = self.root.join(name);
            compressed::read(&path).map_err(|error| Failure::file(&path, "read", error))
        };
        Ok(names.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn remove(&self, which: impl Fn(&str) -> bool) -> Result<(), Failure> {
        for name in self.copies().concat().iter().filter(|name| which(name)) {
            let path = self.root.join(name);
            fs::remove_file(&path).map_err(|error| Failure::file(&path, "remove", error))?;
        }
        Ok(())
    }
}

/// Whether a file is a part of one.
fn numbered(name: &str) -> bool {
    name.split_once('.').is_some_and(|(stem, _)| stem.contains('-'))
}

/// Whole lines, in about so many parts of the same length.
fn split(bytes: &[u8], parts: usize) -> Vec<&[u8]> {
    let (mut rest, mut found) = (bytes, Vec::new());
    for left in (1..=parts).rev() {
        let aim = rest.len() / left;
        let end = if left == 1 { None } else { rest.iter().skip(aim).position(|byte| *byte == b'\n') };
        let (part, behind) = rest.split_at(end.map_or(rest.len(), |end| aim + end + 1));
        found.extend((!part.is_empty()).then_some(part));
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn what_is_packed_lies_in_small_parts_and_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let stored = Stored::new(folder.path(), "rows.jsonl", "rows");
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let large: String =
            (0..150_000).map(|line| format!("{{\"line\":{line},\"{:032x}\":0}}\n", random.random::<u128>())).collect();
        for (text, many) in [("{}\n".to_owned(), false), (String::new(), false), (large, true)] {
            fs::write(stored.plain(), &text).unwrap();
            stored.pack().unwrap();
            assert!(!stored.plain().exists() && (names().len() > 1) == many, "{:?}", names());
            for name in names() {
                let path = folder.path().join(name);
                assert!(fs::metadata(&path).unwrap().len() <= PART as u64, "{path:?}");
                let part = compressed::read(&path).unwrap();
                assert!(part.is_empty() || part.ends_with(b"\n"), "{path:?} ends within a line");
            }
            assert!(stored.read().unwrap() == text.as_bytes());
            // The sums of the packed files are sums of the plain one that is unpacked beside them.
            let sums: Vec<_> = names()
                .into_iter()
                .map(|name| (checksum::of_file(&folder.path().join(&name)).unwrap(), name))
                .collect();
            let known = |name: &str| sums.iter().find(|(_, of)| of == name).map(|(sum, _)| sum.clone());
            assert!(stored.summed(&known).unwrap());
            fs::write(stored.plain(), &text).unwrap();
            assert!(stored.summed(&known).unwrap());
            if many {
                // As an interrupted compression leaves them; but what is no beginning is no copy.
                let last = names().into_iter().rfind(|name| name != "rows.jsonl").unwrap();
                fs::rename(folder.path().join(&last), folder.path().join("kept")).unwrap();
                assert!(stored.read().unwrap() == text.as_bytes());
                fs::write(stored.plain(), text.replacen('0', "1", 1)).unwrap();
                assert!(stored.read().is_err());
                fs::write(stored.plain(), &text).unwrap();
                fs::rename(folder.path().join("kept"), folder.path().join(&last)).unwrap();
            }
            stored.unpack().unwrap();
            assert_eq!(names(), ["rows.jsonl"]);
            assert!(fs::read(stored.plain()).unwrap() == text.as_bytes());
        }
    }
}
