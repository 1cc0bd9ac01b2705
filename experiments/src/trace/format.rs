//! Traces as they are replayed: what each thread allocates and frees, by numbers instead of addresses.
//!
//! ```text
//! bytes   what, little-endian
//! 0-7     "PSQTRC01"
//! 8-11    threads
//! 12-15   1 if the trace is synthetic, else 0
//! 16-23   objects: their numbers are below this, and none comes twice
//! 24-31   events of all threads
//! 32-39   checksum of all that follows: FNV-1a, 64 bits
//! 40-...  for each thread: u64 length of its events, then the events
//! ```
//!
//! An event is one variable-length integer (seven bits to a byte, the lowest first): twice the object's number, plus 0 and
//! followed by the size for an allocation, plus 1 for a release. A release of an object that another thread allocates
//! waits for it: no other order between threads is kept. What is never released is released at the end of a replay.
//!
//! A trace is untrusted: [`Trace::parse`] checks every number, and that the threads can all come to their ends.

use std::collections::{BTreeMap, VecDeque};

/// The first bytes.
pub const MAGIC: &[u8; 8] = b"PSQTRC01";
const HEAD_BYTES: usize = 40;

/// Most objects, threads and bytes of one object that are accepted.
pub const MOST_OBJECTS: u64 = 1 << 26;
/// See [`MOST_OBJECTS`].
pub const MOST_THREADS: u32 = 4096;
/// See [`MOST_OBJECTS`].
pub const LARGEST: u64 = 1 << 32;

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The object with this number gets so many bytes.
    Allocate(u64, u64),
    /// The object with this number is released.
    Free(u64),
}

/// A trace in memory.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trace {
    /// Whether it was made up.
    pub synthetic: bool,
    /// Objects.
    pub objects: u64,
    /// Events of each thread.
    pub threads: Vec<Vec<Event>>,
}

impl Trace {
    /// Events of all threads.
    pub fn events(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }

    /// Every event with its thread, in an order in which they could have happened: each thread goes on until it waits,
    /// and a released one before others. For a trace that was checked.
    pub fn in_order(&self) -> Vec<(usize, Event)> {
        let mut order = Vec::with_capacity(self.events());
        let mut born = vec![false; self.objects as usize];
        let mut places = vec![0; self.threads.len()];
        let mut waiting: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut ready: VecDeque<usize> = (0..self.threads.len()).collect();
        while let Some(thread) = ready.pop_front() {
            let mut waits = false;
            // A few events at a time, so that threads advance side by side as they did.
            for _ in 0..64 {
                let Some(event) = self.threads[thread].get(places[thread]) else { break };
                match *event {
                    Event::Allocate(object, _) => {
                        born[object as usize] = true;
                        ready.extend(waiting.remove(&object).unwrap_or_default());
                    }
                    Event::Free(object) if !born[object as usize] => {
                        waiting.entry(object).or_default().push(thread);
                        waits = true;
                        break;
                    }
                    Event::Free(_) => {}
                }
                order.push((thread, *event));
                places[thread] += 1;
            }
            if !waits && places[thread] < self.threads[thread].len() {
                ready.push_back(thread);
            }
        }
        order
    }

    /// Writes it down.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for thread in &self.threads {
            let mut events = Vec::with_capacity(thread.len() * 4);
            for event in thread {
                match *event {
                    Event::Allocate(object, size) => {
                        put(&mut events, object << 1);
                        put(&mut events, size);
                    }
                    Event::Free(object) => put(&mut events, object << 1 | 1),
                }
            }
            body.extend((events.len() as u64).to_le_bytes());
            body.extend(events);
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend((self.threads.len() as u32).to_le_bytes());
        bytes.extend(u32::from(self.synthetic).to_le_bytes());
        bytes.extend(self.objects.to_le_bytes());
        bytes.extend((self.events() as u64).to_le_bytes());
        bytes.extend(checksum(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads and checks it.
    pub fn parse(bytes: &[u8]) -> Result<Trace, String> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err("not a trace: expected the first bytes PSQTRC01".into());
        }
        if bytes.len() < HEAD_BYTES {
            return Err(format!("cut off: {} bytes, the head alone has {HEAD_BYTES}", bytes.len()));
        }
        let (head, mut body) = bytes.split_at(HEAD_BYTES);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
        let (threads, synthetic) = (word(8) as u32, word(8) >> 32 == 1);
        let (objects, events, sum) = (word(16), word(24), word(32));
        if threads > MOST_THREADS || objects > MOST_OBJECTS {
            return Err(format!(
                "{threads} threads and {objects} objects: expected at most {MOST_THREADS} and {MOST_OBJECTS}"
            ));
        }
        if checksum(body) != sum {
            return Err("cut off or damaged: the checksum differs".into());
        }
        let mut trace = Trace { synthetic, objects, threads: Vec::new() };
        for thread in 0..threads {
            let length = u64::from_le_bytes(take(&mut body, 8)?.try_into().unwrap_or_default());
            let mut stream = take(&mut body, usize::try_from(length).unwrap_or(usize::MAX))?;
            let mut list = Vec::new();
            while !stream.is_empty() {
                let code = get(&mut stream)?;
                let object = code >> 1;
                if object >= objects {
                    return Err(format!("thread {thread}: object {object}, expected a number below {objects}"));
                }
                list.push(if code & 1 == 1 { Event::Free(object) } else { Event::Allocate(object, get(&mut stream)?) });
            }
            trace.threads.push(list);
        }
        if !body.is_empty() || trace.events() as u64 != events {
            return Err(format!(
                "{} events and {} bytes left over, expected {events} and none",
                trace.events(),
                body.len()
            ));
        }
        trace.check()?;
        Ok(trace)
    }

    /// Every object allocated once, before it is released, at most once; and every thread comes to its end.
    pub fn check(&self) -> Result<(), String> {
        const UNBORN: u8 = 0;
        const LIVE: u8 = 1;
        const DEAD: u8 = 2;
        let mut states = vec![UNBORN; self.objects as usize];
        let mut born = vec![false; self.objects as usize];
        for event in self.threads.iter().flatten() {
            if let Event::Allocate(object, size) = *event {
                if std::mem::replace(&mut born[object as usize], true) {
                    return Err(format!("object {object} is allocated twice"));
                }
                if size == 0 || size > LARGEST {
                    return Err(format!("object {object} has {size} bytes, expected 1 to {LARGEST}"));
                }
            }
        }
        // Each thread runs until it waits. If none can go on and one is not at its end, they wait for each other. A
        // waiting thread is looked at again only when the object it waits for is born, so this is one pass over all.
        let mut places = vec![0; self.threads.len()];
        let mut waiting: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut ready: Vec<usize> = (0..self.threads.len()).collect();
        while let Some(thread) = ready.pop() {
            while let Some(event) = self.threads[thread].get(places[thread]) {
                match *event {
                    Event::Allocate(object, _) => {
                        states[object as usize] = LIVE;
                        ready.extend(waiting.remove(&object).unwrap_or_default());
                    }
                    Event::Free(object) => match states[object as usize] {
                        LIVE => states[object as usize] = DEAD,
                        DEAD => return Err(format!("object {object} is released twice")),
                        _ if !born[object as usize] => {
                            return Err(format!("object {object} is released but never allocated"));
                        }
                        _ => {
                            waiting.entry(object).or_default().push(thread);
                            break;
                        }
                    },
                }
                places[thread] += 1;
            }
        }
        match waiting.first_key_value() {
            Some((object, threads)) => {
                Err(format!("thread {} waits for object {object} for ever", threads.first().copied().unwrap_or(0)))
            }
            None => Ok(()),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("cut off: a thread's events end early")?;
    *bytes = rest;
    Ok(taken)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn get(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("cut off inside a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than 64 bits".into())
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Allocate, Free};

    fn trace(threads: Vec<Vec<Event>>) -> Trace {
        Trace { synthetic: true, objects: 8, threads }
    }

    #[test]
    fn what_is_written_is_read() {
        let good = trace(vec![vec![Allocate(0, 24), Allocate(7, 1 << 20), Free(0)], vec![Free(7), Allocate(3, 1)]]);
        assert_eq!(Trace::parse(&good.bytes()), Ok(good));
    }

    #[test]
    fn a_trace_that_makes_no_sense_is_refused_with_the_reason() {
        let refuse = |threads, expected: &str| {
            let error = Trace::parse(&trace(threads).bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refuse(vec![vec![Allocate(0, 8), Allocate(0, 8)]], "allocated twice");
        refuse(vec![vec![Allocate(0, 8), Free(0), Free(0)]], "released twice");
        refuse(vec![vec![Free(1)]], "never allocated");
        refuse(vec![vec![Allocate(0, 0)]], "0 bytes");
        refuse(vec![vec![Free(1), Allocate(0, 8)], vec![Free(0), Allocate(1, 8)]], "for ever");
        refuse(vec![vec![Allocate(9, 8)]], "below 8");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = trace(vec![vec![Allocate(0, 300), Free(0)], vec![Allocate(1, 5)]]).bytes();
        for length in 0..bytes.len() {
            assert!(Trace::parse(&bytes[..length]).is_err(), "{length}");
        }
        for bit in HEAD_BYTES * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Trace::parse(&damaged).is_err(), "{bit}");
        }
    }
}
