//! The allocators of a process: found in its memory by how they begin ([`perseq::live`]), not by a name.

use super::process::{Process, Unread};
use crate::failure::Failure;
use crate::mappings::Mapping;
use perseq::live::{ALIGNMENT, Head, Live, MAGIC, VERSION};
use std::collections::BTreeSet;

/// Bytes that are read at a time.
const PART: usize = 1 << 20;

/// An allocator of a process.
pub struct Allocator {
    /// The program or library that holds it.
    pub file: String,
    head: Head,
}

/// The allocators of `process` that this command understands, in the order of their addresses; at least one.
pub fn allocators(process: &Process) -> Result<Vec<Allocator>, Failure> {
    let mappings = process.mappings().map_err(|why| process.failure(&why))?;
    let mut found = Vec::new();
    for mapping in data(&mappings) {
        found.extend(in_mapping(process, mapping).map_err(|why| process.failure(&why))?);
    }
    let Some(first) = found.first() else {
        return Err(Failure::usage(format!("{process}: it does not run on perseq, or on one older than this command")));
    };
    if found.iter().all(|allocator| allocator.head.version != VERSION) {
        let (theirs, file) = (first.head.version, &first.file);
        return Err(Failure::usage(format!(
            "{process}: {file} holds a perseq that tells its numbers in version {theirs}; this command reads {VERSION}"
        )));
    }
    found.retain(|allocator| allocator.head.version == VERSION);
    Ok(found)
}

impl Allocator {
    /// What it says of itself now.
    pub fn read(&self, process: &Process) -> Result<Live, Unread> {
        let bytes = process.bytes(self.head.this.address(), size_of::<Live>())?;
        let live = Live::from_bytes(&bytes).filter(|live| live.head.this == self.head.this);
        live.ok_or(Unread::Ended) // another program has its place, or its number, by now
    }
}

/// Where programs and libraries have their data: what is writable of files of which something can be executed.
fn data(mappings: &[Mapping]) -> impl Iterator<Item = &Mapping> {
    let code = mappings.iter().filter(|mapping| mapping.executable && mapping.is_of_file());
    let code: BTreeSet<&str> = code.map(|mapping| mapping.identity.as_str()).collect();
    mappings.iter().filter(move |mapping| mapping.writable && code.contains(mapping.identity.as_str()))
}

fn in_mapping(process: &Process, mapping: &Mapping) -> Result<Vec<Allocator>, Unread> {
    let (mut found, mut start) = (Vec::new(), mapping.start);
    while start < mapping.end {
        let length = PART.min((mapping.end - start) as usize);
        let part = match process.bytes(start, length) {
            Ok(part) => part,
            // Beyond the end of its file, or gone since.
            Err(Unread::Unmapped) => break,
            Err(why) => return Err(why),
        };
        for place in (0..part.len().saturating_sub(MAGIC.len() - 1)).step_by(ALIGNMENT) {
            if part[place..place + MAGIC.len()] != MAGIC {
                continue;
            }
            let address = start + place as u64;
            let head = process.bytes(address, size_of::<Head>())?;
            // A copy of it says where the original is.
            if let Some(head) = Head::from_bytes(&head).filter(|head| head.this.address() == address) {
                found.push(Allocator { file: mapping.file.clone(), head });
            }
        }
        start += length as u64;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_is_writable_of_a_file_with_code() {
        let mapping = |identity: &str, writable, executable| Mapping {
            start: 0,
            end: 4096,
            writable,
            executable,
            offset: 0,
            identity: identity.into(),
            file: "file".into(),
        };
        let mappings = [
            mapping("a", false, true),
            mapping("a", true, false),
            mapping("b", true, false),
            mapping("c", false, false),
            mapping("00:00 0", false, true),
            mapping("00:00 0", true, false),
        ];
        assert_eq!(data(&mappings).collect::<Vec<_>>(), [&mappings[1]]);
    }

    #[test]
    fn the_allocator_of_this_program_is_found_once_and_is_this_one() {
        // What this very program holds, though nobody may have allocated through it.
        _ = perseq::stats();
        let own = Process::new(std::process::id() as i32).unwrap();
        let found = allocators(&own).unwrap();
        assert_eq!(found.len(), 1, "copies are none");
        assert!(found[0].file.contains("perseq"), "{}", found[0].file);
        let live = found[0].read(&own).unwrap();
        assert_eq!(live.page_bytes as usize, perseq::PAGE_SIZE, "{live:?}");
    }
}
