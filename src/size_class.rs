//! Size classes: every small size and alignment to a class in one table load.
//!
//! The classes are chosen when perseq is built (`build/default.toml`). By default they step by 8 bytes to 64, by 16 to
//! 128, then four to a doubling: a request wastes at most a fifth of its object above 128 bytes.
//!
//! A class whose size is a multiple of an alignment has all its objects so aligned, because spans begin on page
//! boundaries. With the default sizes the smallest class that holds a size rounded up to its alignment always is such
//! a multiple; whether that is so is found when the tables are made, and where it is not, larger classes are tried.

use core::alloc::Layout;
use core::mem::offset_of;

use crate::config::{MAX_SMALL, PAGE_SIZE, built};
use crate::place::{Extent, Place, bytes};

/// How many classes there are.
pub const CLASSES: usize = built::CLASSES.len();

/// Most objects a span can have.
pub const MAX_OBJECTS: usize = max_objects();

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
    /// `ceil(2^40 / size)`: see [`ClassInfo::index_of`].
    reciprocal: u64,
}

impl ClassInfo {
    /// Which object of its span the byte at `offset` belongs to: `offset / size` by multiplication.
    ///
    /// With `m = ceil(2^40 / size)`, `(offset * m) >> 40` is exact while `offset * (size - 1) < 2^40`
    /// (after Granlund and Montgomery, PLDI 1994, theorem 4.2); checked below for every class.
    #[inline]
    pub fn index_of(&self, offset: usize) -> usize {
        ((offset as u64 * self.reciprocal) >> RECIPROCAL_BITS) as usize
    }
}

/// The classes, smallest first.
pub static TABLE: [ClassInfo; CLASSES] = table();

/// Where the size classes are, smallest first, and what is where in each: 32 bits, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ClassLayout {
    /// The first.
    pub start: Place,
    /// How many there are.
    pub count: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// Bytes of an object.
    pub size: u32,
    /// Pages of a span.
    pub pages: u32,
    /// Objects of a span.
    pub objects: u32,
    /// Objects moved between tiers at a time.
    pub batch: u32,
}

/// See [`ClassLayout`].
pub const fn layout() -> ClassLayout {
    ClassLayout {
        start: Place::of(&raw const TABLE),
        count: bytes(CLASSES),
        stride: bytes(size_of::<ClassInfo>()),
        size: bytes(offset_of!(ClassInfo, size)),
        pages: bytes(offset_of!(ClassInfo, pages)),
        objects: bytes(offset_of!(ClassInfo, objects)),
        batch: bytes(offset_of!(ClassInfo, batch)),
    }
}

/// The tables that find a size's class and say what it is made of.
pub const fn tables() -> [Extent; 3] {
    [Extent::of(&raw const TABLE), Extent::of(&raw const LOOKUP), Extent::of(&raw const BLOCK_LOOKUP)]
}

/// Sizes up to here are looked up in steps of 8, above in steps of 128.
const FINE: usize = 1024;
const FINE_STEPS: usize = FINE / 8;
const STEPS: usize = FINE_STEPS + (MAX_SMALL - FINE) / 128 + 1;
const LOOKUP_TABLE: [u8; STEPS] = lookup();
static LOOKUP: [u8; STEPS] = LOOKUP_TABLE;
const ALIGNED_BY_SIZE: bool = aligned_by_size();
/// A span is at most 2^24 bytes and an object at least 8, so that `index_of` stays below 2^64.
const RECIPROCAL_BITS: u32 = 40;

impl SizeClass {
    /// The class for `layout`, whose size is not 0, or `None` if it is large.
    #[inline(always)]
    pub fn of(layout: Layout) -> Option<SizeClass> {
        // A layout's size rounded up to its alignment does not overflow, by the type's invariant.
        let size = (layout.size() + layout.align() - 1) & !(layout.align() - 1);
        if size > MAX_SMALL || layout.align() > PAGE_SIZE {
            return None;
        }
        // Not `div_ceil`, which the compiler does not always see to be no more than this.
        let step = if size <= FINE { (size + 7) >> 3 } else { ((size + 127) >> 7) + (FINE_STEPS - FINE / 128) };
        // SAFETY: `size <= MAX_SMALL`, whose step is the table's last index (asserted in `lookup`).
        let class = SizeClass(unsafe { *LOOKUP.get_unchecked(step) });
        if ALIGNED_BY_SIZE { Some(class) } else { class.aligned(layout.align()) }
    }

    /// The smallest class from this one on whose size is a multiple of `align`.
    #[inline]
    fn aligned(self, align: usize) -> Option<SizeClass> {
        (self.0..CLASSES as u8).map(SizeClass).find(|class| class.size().is_multiple_of(align))
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

const fn table() -> [ClassInfo; CLASSES] {
    let mut table = [ClassInfo { size: 0, pages: 0, objects: 0, batch: 0, reciprocal: 0 }; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        let (size, pages, batch) = built::CLASSES[index];
        let span = pages as usize * PAGE_SIZE;
        assert!((span as u64 - 1) * (size as u64 - 1) < 1 << RECIPROCAL_BITS, "index_of is exact");
        let objects = (span / size as usize) as u32;
        table[index] =
            ClassInfo { size, pages, objects, batch, reciprocal: (1u64 << RECIPROCAL_BITS).div_ceil(size as u64) };
        index += 1;
    }
    table
}

const fn lookup() -> [u8; STEPS] {
    let mut lookup = [0; STEPS];
    let (mut step, mut class) = (0, 0);
    while step < STEPS {
        let size = if step <= FINE_STEPS { step * 8 } else { FINE + (step - FINE_STEPS) * 128 };
        while (built::CLASSES[class].0 as usize) < size {
            class += 1;
        }
        lookup[step] = class as u8;
        step += 1;
    }
    assert!(class == CLASSES - 1);
    lookup
}

/// Whether the smallest class that holds a size rounded up to its alignment always is a multiple of the alignment.
const fn aligned_by_size() -> bool {
    let mut align = 16;
    while align <= PAGE_SIZE {
        let mut size = align;
        while size <= MAX_SMALL {
            let step = if size <= FINE { size / 8 } else { size / 128 + (FINE_STEPS - FINE / 128) };
            if !(built::CLASSES[LOOKUP_TABLE[step] as usize].0 as usize).is_multiple_of(align) {
                return false;
            }
            // Above FINE a multiple of an alignment below 128 may lie between two steps.
            size += if size >= FINE && align < 128 { 128 } else { align };
        }
        align *= 2;
    }
    true
}

const fn max_objects() -> usize {
    let (mut most, mut index) = (0, 0);
    while index < CLASSES {
        if TABLE[index].objects as usize > most {
            most = TABLE[index].objects as usize;
        }
        index += 1;
    }
    most
}

/// By size in steps of 16, for blocks aligned to 16; 0 is a block as well.
static BLOCK_LOOKUP: [u8; FINE / 16 + 1] = block_lookup();

const fn block_lookup() -> [u8; FINE / 16 + 1] {
    let (mut table, mut step) = ([0; FINE / 16 + 1], 0);
    while step < table.len() {
        let size = if step == 0 { 16 } else { step * 16 };
        let mut class = LOOKUP_TABLE[size / 8];
        while !built::CLASSES[class as usize].0.is_multiple_of(16) {
            class += 1; // the last class is a multiple of 16
        }
        table[step] = class;
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
                let fits = |info: &&ClassInfo| {
                    let aligned = (info.size as usize).is_multiple_of(align);
                    info.size as usize >= size.next_multiple_of(align) && aligned
                };
                let smallest = TABLE.iter().find(fits).map(|info| info.size as usize);
                assert_eq!(class(size, align).map(SizeClass::size), smallest, "{size}/{align}");
            }
        }
        assert_eq!(class(MAX_SMALL + 1, 1), None);
        assert_eq!(class(8, 2 * PAGE_SIZE), None);
    }

    #[test]
    fn blocks_of_c_are_aligned_to_16() {
        for size in 0..=FINE {
            assert_eq!(SizeClass::of_fine_block(size), class(size.max(1), 16), "{size}");
        }
        assert_eq!(SizeClass::of_fine_block(FINE + 1), None);
    }

    #[test]
    fn waste_is_bounded() {
        if crate::config::BUILD_CONFIG != "default" {
            return; // other tables waste what they were made to
        }
        for size in 1..=MAX_SMALL {
            let object = class(size, 1).unwrap().size();
            assert!(object - size < 16 || (object - size) * 5 <= object, "{size} in {object}");
        }
        for info in &TABLE {
            let bytes = info.pages as usize * PAGE_SIZE;
            assert!((bytes - (info.objects * info.size) as usize) * 16 <= bytes, "{info:?}");
        }
        let aligned = ALIGNED_BY_SIZE; // not in a const block, which other tables would fail as well
        assert!(aligned, "the fast path looks at one class");
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
