//! From a recorder's notes to a trace: addresses become numbers, and what was allocated before the recording is left out.

use super::format::{Event, Trace};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"PSQRAW01";
/// Bytes of a recording before its notes.
pub const HEAD_BYTES: usize = 64;
const NO_RECORDING: &str = "not a recording: expected the first bytes PSQRAW01";
const NOTE_BYTES: usize = 24;

/// A trace, and what could not be part of it.
#[derive(Debug)]
pub struct Imported {
    /// The trace.
    pub trace: Trace,
    /// What could not be part of it.
    pub left_out: LeftOut,
}

/// Events that are in no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Notes that the file had no room for.
    pub lost: u64,
    /// Releases of what was allocated before the recording began, or beside it.
    pub foreign: u64,
    /// Notes that were not finished when the program ended.
    pub unfinished: u64,
}

impl LeftOut {
    /// Those of another recording beside these.
    pub fn add(&mut self, other: LeftOut) {
        self.lost += other.lost;
        self.foreign += other.foreign;
        self.unfinished += other.unfinished;
    }

    /// Says on standard error how many there are of each kind.
    pub fn warn(&self) {
        for (count, what) in [
            (self.lost, "events had no room in the recording; record with more --events"),
            (self.foreign, "releases of what was allocated before the recording are left out"),
            (self.unfinished, "events were not finished when the program ended"),
        ] {
            if count > 0 {
                eprintln!("warning: {count} {what}");
            }
        }
    }
}

/// What a recording says of its process. Those of older recorders say nothing: all is 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Process {
    /// Its name, at most 15 bytes of it.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// When it began, on a clock that all processes share.
    pub began: u64,
    /// When it ended, on that clock. None: it was killed, or executed another program, or still runs.
    pub ended: Option<u64>,
}

/// What the head of a recording says: whose it is, and how many of its bytes are in use.
pub fn head(bytes: &[u8; HEAD_BYTES]) -> Result<(Process, u64), String> {
    if bytes[..8] != *MAGIC {
        return Err(NO_RECORDING.into());
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    let name = bytes[24..40].split(|byte| *byte == 0).next().unwrap_or_default();
    let ended = Some(word(48)).filter(|ended| *ended != 0);
    let process = Process { name: String::from_utf8_lossy(name).into(), id: word(56), began: word(40), ended };
    Ok((process, HEAD_BYTES as u64 + word(8).min(word(16)).saturating_mul(NOTE_BYTES as u64)))
}

/// Reads the notes of a recorder, `most` of them after the first `skip`. What was allocated before them is foreign.
pub fn import(bytes: &[u8], skip: u64, most: u64) -> Result<Imported, String> {
    if bytes.get(..8) != Some(MAGIC) {
        return Err(NO_RECORDING.into());
    }
    let word = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    let (taken, room) = word(8).zip(word(16)).ok_or("cut off inside its head")?;
    let notes = taken.min(room) as usize;
    let end = notes.checked_mul(NOTE_BYTES).and_then(|length| length.checked_add(HEAD_BYTES));
    let body =
        end.and_then(|end| bytes.get(HEAD_BYTES..end)).ok_or("cut off: it has fewer notes than its head says")?;

    let mut imported = Imported {
        trace: Trace::default(),
        left_out: LeftOut { lost: taken.saturating_sub(room), ..LeftOut::default() },
    };
    let (mut live, mut threads) = (BTreeMap::new(), BTreeMap::new());
    let wanted = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    for note in body.chunks_exact(NOTE_BYTES).skip(wanted(skip)).take(wanted(most)) {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| note[at + index]));
        let (address, size, thread, kind) = (long(0), long(8), long(16) as u32, long(16) >> 32);
        let number = threads.len();
        let thread = *threads.entry(thread).or_insert(number);
        if thread == imported.trace.threads.len() {
            imported.trace.threads.push(Vec::new());
        }
        let events = &mut imported.trace.threads[thread];
        match kind {
            1 => {
                let object = imported.trace.objects;
                imported.trace.objects += 1;
                // An address that comes again without a release was released by a call we do not see.
                live.insert(address, object);
                events.push(Event::Allocate(object, size.max(1)));
            }
            2 => match live.remove(&address) {
                Some(object) => events.push(Event::Free(object)),
                None => imported.left_out.foreign += 1,
            },
            _ => imported.left_out.unfinished += 1,
        }
    }
    imported.trace.check()?;
    Ok(imported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(room: u64, notes: &[(u64, u64, u32, u32)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((notes.len() as u64).to_le_bytes());
        bytes.extend(room.to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        for (address, size, thread, kind) in notes {
            bytes.extend(address.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(thread.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn an_address_used_twice_is_two_objects() {
        let notes = [(64, 10, 7, 1), (64, 0, 9, 2), (64, 20, 9, 1), (128, 0, 9, 2), (0, 0, 0, 0)];
        let imported = import(&raw(16, &notes), 0, u64::MAX).unwrap();
        assert_eq!(imported.trace.threads[0], [Event::Allocate(0, 10)]);
        assert_eq!(imported.trace.threads[1], [Event::Free(0), Event::Allocate(1, 20)]);
        assert_eq!(imported.left_out, LeftOut { lost: 0, foreign: 1, unfinished: 1 });
    }

    #[test]
    fn a_part_of_a_recording_is_a_trace_of_its_own() {
        let notes = [(64, 10, 7, 1), (128, 20, 7, 1), (64, 0, 7, 2), (128, 0, 9, 2), (192, 30, 9, 1)];
        let imported = import(&raw(16, &notes), 1, 3).unwrap();
        assert_eq!(imported.trace.threads, [vec![Event::Allocate(0, 20)], vec![Event::Free(0)]]);
        assert_eq!(imported.left_out.foreign, 1);
    }

    #[test]
    fn notes_beyond_the_room_are_counted_as_lost() {
        let imported = import(&raw(1, &[(64, 10, 7, 1), (64, 0, 7, 2)]), 0, u64::MAX).unwrap();
        assert_eq!((imported.left_out.lost, imported.trace.events()), (1, 1));
        assert!(import(&raw(9, &[(1, 1, 1, 1)])[..70], 0, u64::MAX).unwrap_err().contains("cut off"));
        assert!(import(b"else", 0, u64::MAX).unwrap_err().contains("PSQRAW01"));
    }
}
