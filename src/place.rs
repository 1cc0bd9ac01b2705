//! Places in this process's memory, as `stats/live.rs` tells them to who reads it from outside.

use core::fmt;

/// The address of something in the process that the structure around it describes. Nobody follows it there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(*const ());

// SAFETY: a number that the compiler writes as a pointer because the linker sets it. Nothing is read through it.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// Where `thing` is.
    pub(crate) const fn of<T>(thing: *const T) -> Place {
        Place(thing.cast())
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> u64 {
        self.0 as usize as u64
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address())
    }
}

/// A thing in the process, whole.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Extent {
    /// Where it begins.
    pub start: Place,
    /// Its bytes.
    pub bytes: u32,
}

impl Extent {
    /// That of `thing`.
    pub(crate) const fn of<T>(thing: *const T) -> Extent {
        Extent { start: Place::of(thing), bytes: bytes(size_of::<T>()) }
    }
}

/// Bytes, of a size or an offset, as layouts hold them.
pub(crate) const fn bytes(number: usize) -> u32 {
    assert!(number <= u32::MAX as usize, "a layout's numbers have 32 bits");
    number as u32
}
