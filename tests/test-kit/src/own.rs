//! Memory of the kit's own: mappings, which no allocator knows.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A mapping of `bytes`, zero; `shared` with children that are forked.
fn map(bytes: usize, shared: bool) -> NonNull<u8> {
    let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_NORESERVE };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind | libc::MAP_ANONYMOUS, -1, 0) };
    assert!(start != libc::MAP_FAILED, "the kit cannot map {bytes} bytes: {}", std::io::Error::last_os_error());
    NonNull::new(start.cast()).expect("the kernel does not choose address 0")
}

/// A value in a mapping.
pub struct Own<T>(NonNull<T>);

// SAFETY: owns the value.
unsafe impl<T: Send> Send for Own<T> {}
// SAFETY: gives references as the value would.
unsafe impl<T: Sync> Sync for Own<T> {}

impl<T> Own<T> {
    /// In memory of this process.
    pub fn new(value: T) -> Own<T> {
        Own::place(value, false)
    }

    /// In memory that children share with this process.
    pub fn shared(value: T) -> Own<T> {
        Own::place(value, true)
    }

    fn place(value: T, shared: bool) -> Own<T> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        let place = map(size_of::<T>(), shared).cast::<T>();
        // SAFETY: ours, as long as a value, and aligned to a page.
        unsafe { place.write(value) };
        Own(place)
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a value since `place`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed alone.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        // SAFETY: the value and its mapping are gone with us.
        unsafe {
            self.0.drop_in_place();
            libc::munmap(self.0.as_ptr().cast(), size_of::<T>());
        }
    }
}

/// Values in a row, up to a number that was fixed when it was made. Pages that were never used take no memory.
pub struct Row<T: Copy> {
    start: NonNull<T>,
    length: usize,
    most: usize,
}

// SAFETY: owns its values.
unsafe impl<T: Copy + Send> Send for Row<T> {}
// SAFETY: gives references as a slice would.
unsafe impl<T: Copy + Sync> Sync for Row<T> {}

impl<T: Copy> Row<T> {
    /// Room for `most` values.
    pub fn new(most: usize) -> Row<T> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        Row { start: map(most * size_of::<T>(), false).cast(), length: 0, most }
    }

    /// How many more it has room for.
    pub fn room(&self) -> usize {
        self.most - self.length
    }

    /// Puts a value before the one at `index`.
    pub fn insert(&mut self, index: usize, value: T) {
        assert!(index <= self.length && self.length < self.most, "the kit has no room for more");
        // SAFETY: there is room for one more.
        unsafe {
            let place = self.start.add(index);
            place.copy_to(place.add(1), self.length - index);
            place.write(value);
        }
        self.length += 1;
    }

    /// Puts a value at the end.
    pub fn push(&mut self, value: T) {
        self.insert(self.length, value);
    }

    /// Takes the value at `index` out; those behind it move up.
    pub fn remove(&mut self, index: usize) -> T {
        let value = self[index];
        self.length -= 1;
        // SAFETY: what stood behind it.
        unsafe {
            let place = self.start.add(index);
            place.copy_from(place.add(1), self.length - index);
        }
        value
    }

    /// Takes the last value out.
    pub fn pop(&mut self) -> Option<T> {
        self.length.checked_sub(1).map(|last| self.remove(last))
    }
}

impl<T: Copy> Deref for Row<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many were written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Copy> Drop for Row<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is gone with us.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.most * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_a_vector_is() {
        let (mut row, mut vector) = (Row::new(100), Vec::new());
        for step in 0..1000_usize {
            let at = step * 7919 % (vector.len() + 1);
            if step % 3 == 2 && at < vector.len() {
                assert_eq!(row.remove(at), vector.remove(at));
            } else if row.room() > 0 {
                row.insert(at, step);
                vector.insert(at, step);
            } else {
                assert_eq!(row.pop(), vector.pop());
            }
            assert_eq!(*row, vector);
        }
    }
}
