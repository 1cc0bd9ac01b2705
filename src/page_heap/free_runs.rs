//! Free runs of pages in order of length, then of address: a treap whose nodes are the spans themselves.
//!
//! The shortest run that fits, and of those the lowest, is one walk down. Address-ordered best fit keeps the upper part
//! of a heap empty (Wilson et al., *Dynamic Storage Allocation: A Survey*, 1995). A node's priority is a hash of its number
//! (Seidel and Aragon, *Randomized Search Trees*, 1996), so the tree needs no balance field and about 1.4 log2(n) steps.
//!
//! The links are the spans' `links`: lower and higher. By **locked**, they are the page heap's lock's.

use crate::page_heap::source::PageSource;
use crate::page_heap::space::Space;
use crate::page_heap::span::{Span, SpanId};

/// Free runs of one kind.
pub struct FreeRuns {
    root: SpanId,
}

/// A run's pages, then its first page.
pub type Key = (usize, usize);
/// A key that every run is before.
pub const ABOVE_ALL: Key = (usize::MAX, usize::MAX);

impl FreeRuns {
    pub const EMPTY: FreeRuns = FreeRuns { root: SpanId::NONE };

    /// Adds a span that is in no tree.
    pub fn insert<S: PageSource>(&mut self, space: &Space<S>, id: SpanId) {
        let new = space.span(id);
        let (node, own) = (key(new), priority(id));
        let mut at: *mut SpanId = &mut self.root;
        // SAFETY: `at` is the root or a link of a span in the tree, all of which are ours under the lock. `lower` and
        // `higher` are links of the new span or of spans below it, never the one read from.
        unsafe {
            while *at != SpanId::NONE && priority(*at) >= own {
                let span = space.span(*at);
                at = link(span, key(span) < node);
            }
            // What was here is split by the new key into what goes below it on either side.
            let mut below = core::mem::replace(&mut *at, id);
            let (mut lower, mut higher) = (link(new, false), link(new, true));
            while below != SpanId::NONE {
                let span = space.span(below);
                if key(span) < node {
                    *lower = below;
                    lower = link(span, true);
                    below = *lower;
                } else {
                    *higher = below;
                    higher = link(span, false);
                    below = *higher;
                }
            }
            *lower = SpanId::NONE;
            *higher = SpanId::NONE;
        }
    }

    /// Takes a span of this tree out of it.
    pub fn remove<S: PageSource>(&mut self, space: &Space<S>, id: SpanId) {
        let old = space.span(id);
        let node = key(old);
        let mut at: *mut SpanId = &mut self.root;
        // SAFETY: as in `insert`: every pointer is the root or a link of a span in the tree.
        unsafe {
            while *at != id {
                debug_assert!(*at != SpanId::NONE, "the span is in the tree");
                let span = space.span(*at);
                at = link(span, key(span) < node);
            }
            let (mut lower, mut higher) = (*link(old, false), *link(old, true));
            loop {
                if lower == SpanId::NONE || higher == SpanId::NONE {
                    *at = if lower == SpanId::NONE { higher } else { lower };
                    return;
                }
                if priority(lower) >= priority(higher) {
                    *at = lower;
                    at = link(space.span(lower), true);
                    lower = *at;
                } else {
                    *at = higher;
                    at = link(space.span(higher), false);
                    higher = *at;
                }
            }
        }
    }

    /// The first run, in order of length, then address, that is not before `from`.
    pub fn first_from<S: PageSource>(&self, space: &Space<S>, from: Key) -> Option<SpanId> {
        let (mut at, mut best) = (self.root, None);
        while at != SpanId::NONE {
            let span = space.span(at);
            let fits = key(span) >= from;
            if fits {
                best = Some(at);
            }
            // SAFETY: a span in the tree, ours under the lock.
            at = unsafe { *link(span, !fits) };
        }
        best
    }

    /// The last run, in that order, that is before `below`.
    pub fn longest_before<S: PageSource>(&self, space: &Space<S>, below: Key) -> Option<SpanId> {
        let (mut at, mut best) = (self.root, None);
        while at != SpanId::NONE {
            let span = space.span(at);
            let fits = key(span) < below;
            if fits {
                best = Some(at);
            }
            // SAFETY: as above.
            at = unsafe { *link(span, fits) };
        }
        best
    }
}

#[inline]
fn key(span: &Span) -> Key {
    (span.pages(), span.first_page())
}

/// The link of a span to what is lower or higher. The span is ours under the lock.
#[inline]
fn link(span: &Span, higher: bool) -> *mut SpanId {
    // SAFETY: a free span's fields belong to the lock, which whoever has a `FreeRuns` holds; no reference is kept.
    let locked = unsafe { span.locked() };
    if higher { &mut locked.previous } else { &mut locked.next }
}

/// Fibonacci hashing: numbers that follow one another are far apart.
fn priority(id: SpanId) -> u32 {
    id.0.wrapping_mul(0x9e37_79b1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::config::PAGE_SIZE;
    use crate::page_heap::source::Mmap;

    const SPANS: u32 = 200;

    #[derive(Clone, Debug)]
    enum Step {
        /// Puts the span of this number in, with so many pages, or takes it out if it is there.
        Toggle(u32, usize),
        FirstFrom(usize, usize),
        LongestBefore(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few lengths, so that the address decides often.
        prop_oneof![
            8 => (1..=SPANS, 1_usize..6).prop_map(|(id, pages)| Step::Toggle(id, pages)),
            1 => (0_usize..7, 0..SPANS as usize * 8).prop_map(|(pages, page)| Step::FirstFrom(pages, page)),
            1 => (0_usize..7, 0..SPANS as usize * 8).prop_map(|(pages, page)| Step::LongestBefore(pages, page)),
        ]
    }

    /// Walks the tree: keys in order, and no priority above its parent's. Adds the numbers found to `found`.
    fn walk<S: PageSource>(space: &Space<S>, at: SpanId, found: &mut Vec<u32>) {
        if at == SpanId::NONE {
            return;
        }
        for higher in [false, true] {
            // SAFETY: the test's spans are its own.
            let child = unsafe { *link(space.span(at), higher) };
            if child != SpanId::NONE {
                assert!(priority(child) <= priority(at), "a heap by priority");
                assert_eq!(key(space.span(child)) > key(space.span(at)), higher, "a search tree by key");
            }
            if higher {
                found.push(at.0);
            }
            walk(space, child, found);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_treap_is_an_ordered_map(steps in prop::collection::vec(step(), 1..600)) {
            let mut space = Space::bounded(Mmap::new(), 64 << 20);
            space.new_frontier(1, PAGE_SIZE, 0).expect("a region with its records");
            let (mut runs, mut model) = (FreeRuns::EMPTY, BTreeMap::<Key, u32>::new());
            let first_page = |id: u32| id as usize * 8;
            for step in steps {
                match step {
                    Step::Toggle(number, pages) => {
                        let (id, span) = (SpanId(number), space.span(SpanId(number)));
                        let there = (span.pages(), span.first_page());
                        if model.remove(&there).is_some() {
                            runs.remove(&space, id);
                        } else {
                            span.set_extent(first_page(number), pages);
                            runs.insert(&space, id);
                            model.insert((pages, first_page(number)), number);
                        }
                    }
                    Step::FirstFrom(pages, page) => prop_assert_eq!(
                        runs.first_from(&space, (pages, page)).map(|id| id.0),
                        model.range((pages, page)..).next().map(|(_, number)| *number)
                    ),
                    Step::LongestBefore(pages, page) => prop_assert_eq!(
                        runs.longest_before(&space, (pages, page)).map(|id| id.0),
                        model.range(..(pages, page)).next_back().map(|(_, number)| *number)
                    ),
                }
            }
            let mut found = Vec::new();
            walk(&space, runs.root, &mut found);
            prop_assert_eq!(found, model.into_values().collect::<Vec<_>>());
            // SAFETY: nobody uses it any more.
            unsafe { space.give_back() };
        }
    }
}
