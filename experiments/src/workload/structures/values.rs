//! What an interpreter works on: numbers in boxes, texts, lists of boxes and tables of boxes, each known by its kind when
//! it is evaluated.

use super::shape::Shape;
use crate::workload::objects::next;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;

/// Slots of a table; those that are used are a third.
const SLOTS: usize = 16;

/// The head of every value. `key` is what it evaluates to.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    references: u64,
    kind: Kind,
    /// Bytes of a text, values of a list or table.
    length: usize,
    key: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    List,
    Table,
}

/// Values by their places: the variables of a program.
pub struct Values<A: 'static> {
    allocator: &'static A,
    variables: Vec<*mut Head>,
    born: u64,
    died: u64,
}

/// Bytes of a value: behind the head the bytes of a text, or an array of values.
fn layout(kind: Kind, length: usize) -> Layout {
    let behind = match kind {
        Kind::Number => 0,
        Kind::Text => length.next_multiple_of(8),
        Kind::List => length * size_of::<*mut Head>(),
        Kind::Table => SLOTS * size_of::<*mut Head>(),
    };
    Layout::from_size_align(size_of::<Head>() + behind, 8).unwrap_or(Layout::new::<Head>())
}

/// What stands behind a head: words, each a part of a text or a value.
fn word(value: *mut Head, index: usize) -> *mut u64 {
    // SAFETY: no value has fewer words behind its head than it is asked for.
    unsafe { value.add(1).cast::<u64>().add(index) }
}

impl<A: GlobalAlloc> Values<A> {
    /// So many variables.
    pub fn new(allocator: &'static A, places: usize) -> Values<A> {
        Values { allocator, variables: vec![null_mut(); places], born: 0, died: 0 }
    }

    /// A value with nothing behind its head yet, or null.
    fn make(&mut self, kind: Kind, length: usize, key: u64) -> *mut Head {
        // SAFETY: every layout has a size.
        let value = unsafe { self.allocator.alloc(layout(kind, length)) }.cast::<Head>();
        if !value.is_null() {
            self.born += 1;
            // SAFETY: new and large enough.
            unsafe { value.write(Head { references: 1, kind, length, key }) };
        }
        value
    }

    /// Makes a value of the kind that its key says. Null: no memory.
    fn value(&mut self, key: u64) -> *mut Head {
        let mut random = key | 1;
        match next(&mut random) % 4 {
            0 => self.make(Kind::Number, 0, key),
            1 => {
                let length = 8 + (next(&mut random) % 200) as usize;
                let text = self.make(Kind::Text, length, key);
                for index in 0..if text.is_null() { 0 } else { length.div_ceil(8) } {
                    // SAFETY: within the text.
                    unsafe { word(text, index).write(key ^ index as u64) };
                }
                text
            }
            kind => {
                let (kind, length) = if kind == 2 { (Kind::List, 4 + (key % 8) as usize) } else { (Kind::Table, 5) };
                let slots = if kind == Kind::List { length } else { SLOTS };
                let whole = self.make(kind, length, key);
                if whole.is_null() {
                    return null_mut();
                }
                for index in 0..slots {
                    // SAFETY: within the list or table.
                    unsafe { word(whole, index).cast::<*mut Head>().write(null_mut()) };
                }
                let mut rest = key;
                for index in 0..length {
                    let part = if index + 1 == length { rest } else { next(&mut random) };
                    rest = rest.wrapping_sub(part);
                    let number = self.make(Kind::Number, 0, part);
                    // A table puts a value where its key falls, or behind.
                    let mut place = if kind == Kind::List { index } else { (part % SLOTS as u64) as usize };
                    // SAFETY: as above.
                    while !unsafe { word(whole, place).cast::<*mut Head>().read() }.is_null() {
                        place = (place + 1) % SLOTS;
                    }
                    // SAFETY: as above.
                    unsafe { word(whole, place).cast::<*mut Head>().write(number) };
                    if number.is_null() {
                        return null_mut();
                    }
                }
                whole
            }
        }
    }

    /// What a value is, by its kind: that of a list or table is the sum of what is in it.
    fn evaluate(value: *mut Head) -> u64 {
        // SAFETY: values in variables, lists and tables are live, and this thread's alone.
        let head = unsafe { value.read() };
        match head.kind {
            Kind::Number => head.key,
            Kind::Text => {
                // SAFETY: as above, within the text.
                let words = (0..head.length.div_ceil(8)).map(|index| unsafe { word(value, index).read() });
                black_box(words.fold(0, |all, word| all ^ word));
                head.key
            }
            Kind::List | Kind::Table => {
                parts(value, head).fold(0u64, |sum, part| sum.wrapping_add(Self::evaluate(part)))
            }
        }
    }

    fn release(&mut self, value: *mut Head) {
        // SAFETY: as in `evaluate`.
        let head = unsafe { value.read() };
        if matches!(head.kind, Kind::List | Kind::Table) {
            parts(value, head).for_each(|part| self.release(part));
        }
        self.died += 1;
        // SAFETY: `make` made it with this layout, and nothing names it any more.
        unsafe { self.allocator.dealloc(value.cast(), layout(head.kind, head.length)) };
    }
}

/// The values in a list or table.
fn parts(value: *mut Head, head: Head) -> impl Iterator<Item = *mut Head> {
    let slots = if head.kind == Kind::List { head.length } else { SLOTS };
    // SAFETY: within the list or table, all of which `value` wrote.
    let slot = move |index| unsafe { word(value, index).cast::<*mut Head>().read() };
    (0..slots).map(slot).filter(|part| !part.is_null())
}

impl<A: GlobalAlloc> Shape for Values<A> {
    fn insert(&mut self, place: usize, key: u64) -> bool {
        self.variables[place] = self.value(key);
        !self.variables[place].is_null()
    }

    fn remove(&mut self, place: usize, key: u64) -> bool {
        let value = std::mem::replace(&mut self.variables[place], null_mut());
        if value.is_null() || Self::evaluate(value) != key {
            return false;
        }
        self.release(value);
        true
    }

    fn walk(&mut self) -> (u64, u64) {
        let live = self.variables.iter().filter(|value| !value.is_null());
        live.fold((0, 0u64), |(count, sum), value| (count + 1, sum.wrapping_add(Self::evaluate(*value))))
    }

    fn blocks(&self) -> (u64, u64) {
        (self.born, self.died)
    }
}
