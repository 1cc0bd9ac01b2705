//! A B-tree whose keys are in its leaves: pages of four lines that split when they are full and go when they are empty.

use super::shape::Shape;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;

/// Keys of a full page. There is room for one more, until it splits.
const KEYS: usize = 13;

struct Page {
    leaf: bool,
    count: usize,
    keys: [u64; KEYS + 1],
    /// In an inner page: what is below the first key, and from each key on.
    below: [*mut Page; KEYS + 1],
    /// What is from the last key on, while it is one too many.
    last: *mut Page,
}

/// The tree.
pub struct BTree<A: 'static> {
    allocator: &'static A,
    root: *mut Page,
    born: u64,
    died: u64,
}

/// What became of a page: nothing, or it needs a sibling from a key on.
type Split = Option<(u64, *mut Page)>;

impl<A: GlobalAlloc> BTree<A> {
    /// An empty tree.
    pub fn new(allocator: &'static A) -> BTree<A> {
        BTree { allocator, root: null_mut(), born: 0, died: 0 }
    }

    /// A page, or null.
    fn page(&mut self, leaf: bool) -> *mut Page {
        // SAFETY: a page has a size.
        let page = unsafe { self.allocator.alloc(Layout::new::<Page>()) }.cast::<Page>();
        if !page.is_null() {
            self.born += 1;
            let empty = Page { leaf, count: 0, keys: [0; KEYS + 1], below: [null_mut(); KEYS + 1], last: null_mut() };
            // SAFETY: new and large enough.
            unsafe { page.write(empty) };
        }
        page
    }

    fn release(&mut self, page: *mut Page) {
        self.died += 1;
        // SAFETY: `page` made it with this layout, and nothing names it any more.
        unsafe { self.allocator.dealloc(page.cast(), Layout::new::<Page>()) };
    }

    /// Puts a key below a page. None: no memory.
    fn put(&mut self, at: *mut Page, key: u64) -> Option<Split> {
        // SAFETY: pages of the tree are live and this thread's alone.
        let page = unsafe { &mut *at };
        let place = page.keys[..page.count].partition_point(|known| *known <= key);
        if page.leaf {
            page.keys.copy_within(place..page.count, place + 1);
            page.keys[place] = key;
        } else {
            let Some((from, sibling)) = self.put(page.child(place), key)? else { return Some(None) };
            page.keys.copy_within(place..page.count, place + 1);
            page.keys[place] = from;
            for index in (place + 1..=page.count).rev() {
                page.set_child(index + 1, page.child(index));
            }
            page.set_child(place + 1, sibling);
        }
        page.count += 1;
        if page.count <= KEYS {
            return Some(None);
        }
        let fresh = self.page(page.leaf);
        if fresh.is_null() {
            return None;
        }
        // SAFETY: as above.
        let sibling = unsafe { &mut *fresh };
        let middle = page.count / 2;
        // The key in the middle of an inner page goes up, that of a leaf stays below.
        let first = middle + usize::from(!page.leaf);
        sibling.count = page.count - first;
        sibling.keys[..sibling.count].copy_from_slice(&page.keys[first..page.count]);
        if !page.leaf {
            (0..=sibling.count).for_each(|index| sibling.set_child(index, page.child(first + index)));
        }
        page.count = middle;
        Some(Some((page.keys[middle], fresh)))
    }

    /// Takes a key from below a page. None: it is not there. True: nothing is left below.
    fn take(&mut self, at: *mut Page, key: u64) -> Option<bool> {
        // SAFETY: as in `put`.
        let page = unsafe { &mut *at };
        let place = page.keys[..page.count].partition_point(|known| *known <= key);
        if page.leaf {
            let found = place.checked_sub(1).filter(|found| page.keys[*found] == key)?;
            page.keys.copy_within(place..page.count, found);
            page.count -= 1;
            return Some(page.count == 0);
        }
        let child = page.child(place);
        if !self.take(child, key)? {
            return Some(false);
        }
        self.release(child);
        if page.count == 0 {
            return Some(true);
        }
        page.keys.copy_within(place.max(1)..page.count, place.max(1) - 1);
        (place..page.count).for_each(|index| page.set_child(index, page.child(index + 1)));
        page.count -= 1;
        Some(false)
    }

    fn visit(page: *mut Page, seen: &mut (u64, u64)) {
        // SAFETY: as in `put`.
        let page = unsafe { &*page };
        if page.leaf {
            seen.0 += page.count as u64;
            seen.1 = page.keys[..page.count].iter().fold(seen.1, |sum, key| sum.wrapping_add(*key));
        } else {
            (0..=page.count).for_each(|index| Self::visit(page.child(index), seen));
        }
    }
}

impl Page {
    fn child(&self, index: usize) -> *mut Page {
        if index == KEYS + 1 { self.last } else { self.below[index] }
    }

    fn set_child(&mut self, index: usize, child: *mut Page) {
        if index == KEYS + 1 { self.last = child } else { self.below[index] = child }
    }
}

impl<A: GlobalAlloc> Shape for BTree<A> {
    fn insert(&mut self, _: usize, key: u64) -> bool {
        if self.root.is_null() {
            self.root = self.page(true);
            if self.root.is_null() {
                return false;
            }
        }
        match self.put(self.root, key) {
            None => false,
            Some(None) => true,
            Some(Some((from, sibling))) => {
                let root = self.page(false);
                if root.is_null() {
                    return false;
                }
                // SAFETY: as in `put`.
                let page = unsafe { &mut *root };
                (page.count, page.keys[0], page.below[0], page.below[1]) = (1, from, self.root, sibling);
                self.root = root;
                true
            }
        }
    }

    fn remove(&mut self, _: usize, key: u64) -> bool {
        if self.root.is_null() {
            return false;
        }
        let taken = self.take(self.root, key);
        if taken == Some(true) {
            self.release(self.root);
            self.root = null_mut();
        }
        taken.is_some()
    }

    fn walk(&mut self) -> (u64, u64) {
        let mut seen = (0, 0);
        if !self.root.is_null() {
            Self::visit(self.root, &mut seen);
        }
        seen
    }

    fn blocks(&self) -> (u64, u64) {
        (self.born, self.died)
    }
}
