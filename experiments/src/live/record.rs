//! Numbers in the memory of another process.

use super::process::{Process, Unread};

/// Reads of what is just being changed.
const TRIES: usize = 16;

/// Bytes of another process, whose numbers are at offsets that its layout names. What is not there is 0.
pub struct Record(pub Vec<u8>);

impl Record {
    pub fn part<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        let part = at.checked_add(BYTES).and_then(|end| self.0.get(at..end));
        part.and_then(|part| part.try_into().ok()).unwrap_or([0; BYTES])
    }

    pub fn u64(&self, at: u32) -> u64 {
        u64::from_ne_bytes(self.part(at as usize))
    }

    pub fn u32(&self, at: u32) -> u32 {
        u32::from_ne_bytes(self.part(at as usize))
    }

    pub fn u8(&self, at: u32) -> u8 {
        u8::from_ne_bytes(self.part(at as usize))
    }

    pub fn u16(&self, at: u32) -> u16 {
        u16::from_ne_bytes(self.part(at as usize))
    }

    /// The word of the class with this index in an array of words.
    pub fn word(&self, at: u32, index: usize) -> u64 {
        u64::from_ne_bytes(self.part(at as usize + 8 * index))
    }
}

/// A text in a field, which ends at the first 0 or with the field.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The word of 64 bits at an address. Allocates nothing.
pub fn word(process: &Process, address: u64) -> Result<u64, Unread> {
    let mut bytes = [0; 8];
    process.read(address, &mut bytes).map(|()| u64::from_ne_bytes(bytes))
}

/// What a lock protects, whose word is at `lock`: whole, unless it changes all the time.
pub fn settled(process: &Process, address: u64, bytes: usize, lock: u32) -> Result<Record, Unread> {
    let mut record = Record(process.bytes(address, bytes)?);
    for _ in 0..TRIES {
        let again = Record(process.bytes(address, bytes)?);
        let alike = again.0 == record.0 && again.u32(lock) == 0;
        record = again;
        if alike {
            break;
        }
    }
    Ok(record)
}

/// So many of these, one every so many bytes: all at once, because each call holds up what else changes the process's
/// address space; and those by themselves that were just being changed.
pub fn all_settled(
    process: &Process,
    address: u64,
    count: usize,
    stride: usize,
    lock: u32,
) -> Result<Vec<Record>, Unread> {
    let (before, now) = (process.bytes(address, count * stride)?, process.bytes(address, count * stride)?);
    let both = before.chunks(stride).zip(now.chunks(stride)).enumerate();
    let records = both.map(|(index, (before, now))| {
        let record = Record(now.to_vec());
        if before == now && record.u32(lock) == 0 {
            return Ok(record);
        }
        settled(process, address.wrapping_add((index * stride) as u64), stride, lock)
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_does_not_have_is_zero() {
        let record = Record(vec![1, 0, 0, 0, 2, 0, 0, 0, 7]);
        assert_eq!((record.u32(0), record.u32(4), record.u16(4), record.u64(0)), (1, 2, 2, 0x2_0000_0001));
        assert_eq!((record.u64(2), record.u32(u32::MAX), record.word(8, usize::MAX / 16)), (0, 0, 0));
        assert_eq!(text(b"cpu 0\0\0x"), "cpu 0");
    }
}
