//! Where the process's page heap has what it counts, for who reads the process's memory from outside.

use core::mem::offset_of;

use super::{PageHeap, State, Totals};
use crate::page_heap::directory::{DIRECTORY, DirectoryLayout};
use crate::page_heap::source::Mmap;
use crate::place::{Extent, Place, bytes};
use crate::sync::Mutex;

/// Where the page heap's totals are, in bytes from the beginning of what its lock protects. Words of 64 bits unless
/// said otherwise, in pages unless said otherwise.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageHeapLayout {
    /// Where the lock and what it protects begin.
    pub start: Place,
    /// All of the page heap: this, and what it counts without the lock.
    pub itself: Extent,
    /// Bytes from `start` that hold all of these.
    pub bytes: u32,
    /// 32 bits: 0 while nobody has the lock.
    pub lock: u32,
    /// Pages of spans of small objects.
    pub small: u32,
    /// Pages of large blocks.
    pub large: u32,
    /// Pages of the allocator's own.
    pub own: u32,
    /// Free pages that are resident.
    pub free: u32,
    /// Free pages that read as zero.
    pub zero: u32,
    /// Pages that are just going back to the kernel.
    pub leaving: u32,
    /// Pages that are mapped.
    pub committed: u32,
    /// Bytes that were ever held at once.
    pub peak_bytes: u32,
    /// Pages that went back to the kernel, all told.
    pub returned: u32,
    /// Pages of blocks that were moved by the kernel instead of copied, all told.
    pub relocated: u32,
    /// 32 bits: records of spans that were made.
    pub records: u32,
    /// Bytes of tables beside the records.
    pub tables: u32,
    /// Huge pages, and the records of spans.
    pub directory: DirectoryLayout,
}

impl PageHeap<Mmap> {
    /// See [`PageHeapLayout`]. Of the process's heap.
    pub const fn layout(&'static self) -> PageHeapLayout {
        let value = Mutex::<State>::VALUE_AT;
        let totals = value + offset_of!(State, totals);
        PageHeapLayout {
            start: Place::of(&raw const self.state),
            itself: Extent::of(&raw const *self),
            bytes: bytes(size_of::<Mutex<State>>()),
            lock: bytes(Mutex::<State>::WORD_AT),
            small: bytes(totals + offset_of!(Totals, small)),
            large: bytes(totals + offset_of!(Totals, large)),
            own: bytes(totals + offset_of!(Totals, own)),
            free: bytes(totals + offset_of!(Totals, free)),
            zero: bytes(totals + offset_of!(Totals, zero)),
            leaving: bytes(totals + offset_of!(Totals, leaving)),
            committed: bytes(totals + offset_of!(Totals, committed)),
            peak_bytes: bytes(totals + offset_of!(Totals, peak_bytes)),
            returned: bytes(totals + offset_of!(Totals, released)),
            relocated: bytes(totals + offset_of!(Totals, moved)),
            records: bytes(value + offset_of!(State, records)),
            tables: bytes(value + offset_of!(State, tables)),
            directory: DIRECTORY.layout(),
        }
    }
}
