//! What all structures have in common: keys that are added, removed and visited.

/// What is built, changed and walked.
pub trait Shape {
    /// Adds a key that is not there. `place` is its own among all of them. False: no memory.
    fn insert(&mut self, place: usize, key: u64) -> bool;

    /// Removes a key. False: it is not there.
    fn remove(&mut self, place: usize, key: u64) -> bool;

    /// Visits every key; returns how many and their sum.
    fn walk(&mut self) -> (u64, u64);

    /// Blocks that were allocated and freed.
    fn blocks(&self) -> (u64, u64);
}
