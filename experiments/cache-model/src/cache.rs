//! One cache or TLB: sets of ways, each set ordered by last use.
//!
//! An entry is one word, the line's number above its state, so that a set of eight is one line of the host. The order
//! of a set is that of its entries: the first was used last, and the last is replaced.

use crate::geometry::Shape;

/// What the holder of a line may do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Read it. Others may hold it too.
    Shared = 1,
    /// Read it, and write it without asking: nobody else holds it, and memory is up to date.
    Exclusive = 2,
    /// It has been written: nobody else holds it, and memory is out of date.
    Modified = 3,
}

const STATE_BITS: u32 = 2;
const EMPTY: u64 = 0;

const fn entry(line: u64, state: State) -> u64 {
    line << STATE_BITS | state as u64
}

const fn state(entry: u64) -> State {
    match entry & ((1 << STATE_BITS) - 1) {
        1 => State::Shared,
        2 => State::Exclusive,
        _ => State::Modified,
    }
}

/// A set-associative cache with exact least-recently-used replacement.
#[derive(Clone, Debug)]
pub struct Cache {
    shape: Shape,
    entries: Vec<u64>,
}

impl Cache {
    /// An empty one.
    pub fn new(shape: Shape) -> Cache {
        Cache { shape, entries: vec![EMPTY; shape.entries()] }
    }

    fn set(&self, line: u64) -> std::ops::Range<usize> {
        let sets = self.shape.sets as u64;
        let set = if sets.is_power_of_two() { line & (sets - 1) } else { line % sets } as usize;
        set * self.shape.ways..(set + 1) * self.shape.ways
    }

    fn find(&self, line: u64) -> Option<usize> {
        let set = self.set(line);
        let start = set.start;
        let at = self.entries[set].iter().position(|entry| *entry >> STATE_BITS == line && *entry != EMPTY)?;
        Some(start + at)
    }

    /// Uses a line, if it is here: it becomes the last one its set will replace.
    pub fn touch(&mut self, line: u64) -> Option<State> {
        let set = self.set(line);
        let set = &mut self.entries[set];
        let at = set.iter().position(|entry| *entry >> STATE_BITS == line && *entry != EMPTY)?;
        set[..=at].rotate_right(1);
        Some(state(set[0]))
    }

    /// The state of a line, if it is here, without using it.
    pub fn peek(&self, line: u64) -> Option<State> {
        self.find(line).map(|at| state(self.entries[at]))
    }

    /// Changes the state of a line and says whether it is here. That is no use of it.
    pub fn mark(&mut self, line: u64, state: State) -> bool {
        let found = self.find(line);
        if let Some(at) = found {
            self.entries[at] = entry(line, state);
        }
        found.is_some()
    }

    /// Puts a line that is not here first in its set, and returns the one that had to go.
    pub fn insert(&mut self, line: u64, in_state: State) -> Option<(u64, State)> {
        debug_assert!(self.peek(line).is_none(), "a line is in a cache once");
        let set = self.set(line);
        let set = &mut self.entries[set];
        // Entries that were removed left room at the end.
        set.rotate_right(1);
        let out = std::mem::replace(&mut set[0], entry(line, in_state));
        (out != EMPTY).then(|| (out >> STATE_BITS, state(out)))
    }

    /// Takes a line out.
    pub fn remove(&mut self, line: u64) -> Option<State> {
        let at = self.find(line)?;
        let out = self.entries[at];
        let end = self.set(line).end;
        self.entries[at..end].rotate_left(1);
        self.entries[end - 1] = EMPTY;
        Some(state(out))
    }

    /// Every line and its state.
    pub fn lines(&self) -> impl Iterator<Item = (u64, State)> + '_ {
        let used = self.entries.iter().filter(|entry| **entry != EMPTY);
        used.map(|entry| (*entry >> STATE_BITS, state(*entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Exclusive, Modified, Shared};

    /// Two sets of two: even lines in the first, odd ones in the second.
    fn small() -> Cache {
        Cache::new(Shape { sets: 2, ways: 2 })
    }

    #[test]
    fn the_least_recently_used_of_a_set_goes() {
        let mut cache = small();
        assert_eq!(cache.insert(0, Shared), None);
        assert_eq!(cache.insert(2, Exclusive), None);
        assert_eq!(cache.insert(1, Modified), None, "another set");
        assert_eq!(cache.touch(0), Some(Shared));
        assert_eq!(cache.insert(4, Shared), Some((2, Exclusive)));
        assert_eq!(cache.insert(6, Shared), Some((0, Shared)));
        assert_eq!((cache.peek(1), cache.peek(2)), (Some(Modified), None));
    }

    #[test]
    fn looking_and_marking_are_no_uses() {
        let mut cache = small();
        cache.insert(0, Exclusive);
        cache.insert(2, Shared);
        assert_eq!(cache.peek(0), Some(Exclusive));
        assert!(cache.mark(0, Modified) && !cache.mark(8, Modified));
        assert_eq!(cache.insert(4, Shared), Some((0, Modified)));
    }

    #[test]
    fn what_was_removed_leaves_room() {
        let mut cache = small();
        cache.insert(0, Shared);
        cache.insert(2, Shared);
        assert_eq!((cache.remove(2), cache.remove(2)), (Some(Shared), None));
        assert_eq!(cache.insert(4, Shared), None);
        assert_eq!(cache.lines().collect::<Vec<_>>(), [(4, Shared), (0, Shared)]);
    }

    #[test]
    fn line_zero_is_a_line_and_sets_need_no_power_of_two() {
        let mut cache = Cache::new(Shape { sets: 3, ways: 1 });
        assert_eq!(cache.touch(0), None);
        cache.insert(0, Shared);
        assert_eq!(cache.touch(0), Some(Shared));
        assert_eq!(cache.insert(4, Shared), None);
        assert_eq!(cache.insert(3, Shared), Some((0, Shared)));
    }
}
