//! Size classes: every small size and alignment to a class in one table load.
//!
//! Classes step by 8 bytes to 64, by 16 to 128, then four to a doubling: a request wastes at most a
//! fifth of its object above 128 bytes. A class whose size is a multiple of an alignment has all its
//! objects so aligned, because spans begin on page boundaries. Sizes are chosen so that the smallest
//! class that holds a size rounded up to its alignment always is such a multiple (tested for all).

use core::alloc::Layout;

use crate::config::{BATCH_BYTES, MAX_BATCH, MAX_SMALL, PAGE_SIZE};

/// How many classes there are.
pub const CLASSES: usize = sizes().1;

/// A size class: an index below [`CLASSES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeClass(u8);

const _: () = assert!(CLASSES < u8::MAX as usize, "a class fits a byte with one value to spare");

/// What a class is made of.
#[derive(Clone, Copy, Debug)]
pub struct ClassInfo {
    /// Bytes of an object.
    pub size: u32,
    /// Pages of a span.
    pub pages: u32,
    /// Objects of a span.
    pub objects: u32,
    /// Objects moved between tiers at a time.
    pub batch: u32,
    /// `ceil(2^32 / size)`: see [`ClassInfo::index_of`].
    reciprocal: u64,
}

impl ClassInfo {
    /// Which object of its span the byte at `offset` belongs to: `offset / size` by multiplication.
    ///
    /// With `m = ceil(2^32 / size)`, `(offset * m) >> 32` is exact while `offset * (size - 1) < 2^32`
    /// (after Granlund and Montgomery, PLDI 1994, theorem 4.2); checked below for every class.
    #[inline]
    pub fn index_of(&self, offset: usize) -> usize {
        ((offset as u64 * self.reciprocal) >> 32) as usize
    }
}

/// The classes, smallest first.
pub static TABLE: [ClassInfo; CLASSES] = table();

/// Sizes up to here are looked up in steps of 8, above in steps of 128.
const FINE: usize = 1024;
const FINE_STEPS: usize = FINE / 8;
const LOOKUP_TABLE: [u8; FINE_STEPS + (MAX_SMALL - FINE) / 128 + 1] = lookup();
static LOOKUP: [u8; FINE_STEPS + (MAX_SMALL - FINE) / 128 + 1] = LOOKUP_TABLE;

impl SizeClass {
    /// The class for `layout`, whose size is not 0, or `None` if it is large.
    #[inline(always)]
    pub fn of(layout: Layout) -> Option<SizeClass> {
        // A layout's size rounded up to its alignment does not overflow, by the type's invariant.
        let size = (layout.size() + layout.align() - 1) & !(layout.align() - 1);
        if size > MAX_SMALL || layout.align() > PAGE_SIZE {
            return None;
        }
        let step = if size <= FINE { size.div_ceil(8) } else { size.div_ceil(128) + (FINE_STEPS - FINE / 128) };
        // SAFETY: `size <= MAX_SMALL`, whose step is the table's last index (asserted in `lookup`).
        Some(SizeClass(unsafe { *LOOKUP.get_unchecked(step) }))
    }

    /// The class for a block of C's: up to [`FINE`] bytes, perhaps none, aligned to 16.
    #[inline(always)]
    pub fn of_fine_block(size: usize) -> Option<SizeClass> {
        // SAFETY: the index is at most that of FINE.
        (size <= FINE).then(|| SizeClass(unsafe { *BLOCK_LOOKUP.get_unchecked(size.div_ceil(16)) }))
    }

    /// Its index plus one, for tables where 0 is no class.
    pub fn number(self) -> u8 {
        self.0 + 1
    }

    /// The class with this [`SizeClass::number`]; `None` for 0.
    #[inline(always)]
    pub fn from_number(number: u8) -> Option<SizeClass> {
        number.checked_sub(1).map(SizeClass)
    }

    /// The class with this index.
    #[inline]
    pub fn from_index(index: usize) -> SizeClass {
        assert!(index < CLASSES);
        SizeClass(index as u8)
    }

    /// Its index, below [`CLASSES`].
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// What it is made of.
    #[inline(always)]
    pub fn info(self) -> &'static ClassInfo {
        // SAFETY: a class is an index below CLASSES by construction.
        unsafe { TABLE.get_unchecked(self.index()) }
    }

    /// Bytes of an object.
    #[inline(always)]
    pub fn size(self) -> usize {
        self.info().size as usize
    }

    /// Every class, smallest first.
    pub fn all() -> impl Iterator<Item = SizeClass> {
        (0..CLASSES).map(SizeClass::from_index)
    }
}

/// The sizes and how many there are.
const fn sizes() -> ([usize; 128], usize) {
    let (mut list, mut count, mut size) = ([0; 128], 0, 8);
    while size <= MAX_SMALL {
        list[count] = size;
        count += 1;
        size += if size < 64 {
            8
        } else if size < 128 {
            16
        } else {
            (1 << size.ilog2()) / 4
        };
    }
    assert!(list[count - 1] == MAX_SMALL, "the largest class is MAX_SMALL");
    (list, count)
}

/// Fewest pages that waste at most a sixteenth of the span and hold enough objects for a batch to make sense.
const fn pages_for(size: usize) -> usize {
    let enough = if size <= 8192 { 8 } else { 4 };
    let mut pages = 1;
    loop {
        let bytes = pages * PAGE_SIZE;
        if bytes / size >= enough && (bytes % size) * 16 <= bytes {
            return pages;
        }
        pages += 1;
    }
}

const fn table() -> [ClassInfo; CLASSES] {
    let mut table = [ClassInfo { size: 0, pages: 0, objects: 0, batch: 0, reciprocal: 0 }; CLASSES];
    let (list, _) = sizes();
    let mut index = 0;
    while index < CLASSES {
        let size = list[index];
        let pages = pages_for(size);
        let wanted = BATCH_BYTES / size;
        let batch = if wanted < 2 {
            2
        } else if wanted > MAX_BATCH {
            MAX_BATCH
        } else {
            wanted
        };
        assert!((pages * PAGE_SIZE - 1) * (size - 1) < 1 << 32, "index_of is exact");
        table[index] = ClassInfo {
            size: size as u32,
            pages: pages as u32,
            objects: (pages * PAGE_SIZE / size) as u32,
            batch: batch as u32,
            reciprocal: (1u64 << 32).div_ceil(size as u64),
        };
        index += 1;
    }
    table
}

const fn lookup() -> [u8; FINE_STEPS + (MAX_SMALL - FINE) / 128 + 1] {
    let mut table = [0; FINE_STEPS + (MAX_SMALL - FINE) / 128 + 1];
    let (list, _) = sizes();
    let (mut step, mut class) = (0, 0);
    while step < table.len() {
        let size = if step <= FINE_STEPS { step * 8 } else { FINE + (step - FINE_STEPS) * 128 };
        while list[class] < size {
            class += 1;
        }
        table[step] = class as u8;
        step += 1;
    }
    assert!(class == CLASSES - 1);
    table
}

/// By size in steps of 16, for blocks aligned to 16; 0 is a block as well.
static BLOCK_LOOKUP: [u8; FINE / 16 + 1] = block_lookup();

const fn block_lookup() -> [u8; FINE / 16 + 1] {
    let (mut table, mut step) = ([0; FINE / 16 + 1], 0);
    while step < table.len() {
        let size = if step == 0 { 16 } else { step * 16 };
        table[step] = LOOKUP_TABLE[size / 8];
        step += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(size: usize, align: usize) -> Option<SizeClass> {
        SizeClass::of(Layout::from_size_align(size, align).unwrap())
    }

    #[test]
    fn every_size_and_alignment_gets_the_smallest_class_that_fits() {
        for align in (0..=PAGE_SIZE.ilog2()).map(|bits| 1usize << bits) {
            for size in 1..=MAX_SMALL {
                let rounded = size.next_multiple_of(align);
                let Some(found) = class(size, align) else {
                    assert!(rounded > MAX_SMALL, "{size}/{align} is small");
                    continue;
                };
                assert!(found.size() >= size && found.size().is_multiple_of(align), "{size}/{align}: {found:?}");
                let fits = |info: &&ClassInfo| info.size as usize >= size && (info.size as usize).is_multiple_of(align);
                let smallest = TABLE.iter().find(fits).unwrap().size as usize;
                assert_eq!(found.size(), smallest, "{size}/{align}");
            }
        }
        assert_eq!(class(MAX_SMALL + 1, 1), None);
        assert_eq!(class(8, 2 * PAGE_SIZE), None);
    }

    #[test]
    fn waste_is_bounded() {
        for size in 1..=MAX_SMALL {
            let object = class(size, 1).unwrap().size();
            assert!(object - size < 16 || (object - size) * 5 <= object, "{size} in {object}");
        }
        for info in &TABLE {
            let bytes = info.pages as usize * PAGE_SIZE;
            assert!((bytes - (info.objects * info.size) as usize) * 16 <= bytes, "{info:?}");
            assert!(info.batch >= 2 && info.batch as usize <= MAX_BATCH);
        }
    }

    #[test]
    fn index_of_divides() {
        for info in &TABLE {
            for offset in 0..info.pages as usize * PAGE_SIZE {
                assert_eq!(info.index_of(offset), offset / info.size as usize, "{offset} in {info:?}");
            }
        }
    }
}
