//! E14: lists, trees and hash tables that threads build and change side by side, and how fast they are walked.

use super::objects::{Sums, next, signature};
use super::order::Order;
use super::team::{Member, Team, allowed};
use super::unfavourable::thread_ns;
use crate::measurement::{Cache, Measurement};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Node {
    key: u64,
    next: [*mut Node; 2],
}

/// A structure of one thread.
struct Structure<A: 'static> {
    kind: Kind,
    roots: Vec<*mut Node>,
    allocator: &'static A,
    layout: Layout,
    born: u64,
    died: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Tree,
    Hash,
}

impl<A: GlobalAlloc> Structure<A> {
    /// Where a key hangs, or would.
    fn find(&mut self, key: u64) -> *mut *mut Node {
        let index = (key % self.roots.len() as u64) as usize;
        let mut link: *mut *mut Node = &mut self.roots[index];
        loop {
            // SAFETY: a link is a root or a field of a live node; nodes are this thread's alone.
            let node = unsafe { *link };
            if node.is_null() {
                return link;
            }
            // SAFETY: a link names a live node.
            let found = unsafe { (*node).key };
            if found == key {
                return link;
            }
            let side = usize::from(self.kind == Kind::Tree && key > found);
            // SAFETY: as above.
            link = unsafe { &raw mut (*node).next[side] };
        }
    }

    /// Adds a key that is not there: to the front of a list or chain, to a leaf of a tree. False: no memory.
    fn insert(&mut self, key: u64) -> bool {
        // SAFETY: a node's layout has a size.
        let node = unsafe { self.allocator.alloc(self.layout) }.cast::<Node>();
        if node.is_null() {
            return false;
        }
        self.born += 1;
        let link: *mut *mut Node = match self.kind {
            Kind::Tree => self.find(key),
            _ => {
                let index = (key % self.roots.len() as u64) as usize;
                &mut self.roots[index]
            }
        };
        // SAFETY: the link is live, the node is new and large enough.
        unsafe {
            let rest = if self.kind == Kind::Tree { null_mut() } else { *link };
            node.write(Node { key, next: [rest, null_mut()] });
            *link = node;
        }
        true
    }

    /// Removes a key if it is there.
    fn remove(&mut self, key: u64) -> bool {
        let link = self.find(key);
        // SAFETY: links and nodes are live, and this thread's alone, until `dealloc` below.
        unsafe {
            let node = *link;
            if node.is_null() {
                return false;
            }
            let [left, right] = (*node).next;
            *link = if left.is_null() || right.is_null() {
                if left.is_null() { right } else { left }
            } else {
                // The least of the right side takes its place.
                let mut least: *mut *mut Node = &raw mut (*node).next[1];
                while !(**least).next[0].is_null() {
                    least = &raw mut (**least).next[0];
                }
                let heir = *least;
                *least = (*heir).next[1];
                (*heir).next = [left, (*node).next[1]];
                heir
            };
            self.allocator.dealloc(node.cast(), self.layout);
        }
        self.died += 1;
        true
    }

    /// Visits every node; returns how many and the sum of their keys.
    fn walk(&self, stack: &mut Vec<*mut Node>) -> (u64, u64) {
        let (mut nodes, mut sum) = (0, 0u64);
        for root in &self.roots {
            stack.push(*root);
            while let Some(mut node) = stack.pop() {
                while !node.is_null() {
                    nodes += 1;
                    // SAFETY: a link names a live node.
                    let Node { key, next: [left, right] } = unsafe { node.read() };
                    sum = sum.wrapping_add(key);
                    if !right.is_null() {
                        stack.push(right);
                    }
                    node = left;
                }
            }
        }
        (nodes, sum)
    }
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let kind = match order.get("structure")? {
        1 => Kind::List,
        2 => Kind::Tree,
        3 => Kind::Hash,
        other => return Err(format!("structure {other}: expected 1 to 3")),
    };
    let nodes = order.get("nodes")?.max(1);
    let size = (order.get("node_bytes")? as usize).max(size_of::<Node>());
    let layout = Layout::from_size_align(size, 8).map_err(|error| format!("node_bytes {size}: {error}"))?;
    let changes = order.get("changes_per_walk")?;
    let threads = order.threads(allowed()?.len())?;
    thread_ns()?;
    let clock = || thread_ns().unwrap_or_default(); // it cannot fail once it has worked
    let [visits, walk_ns, changed, change_ns, ops] = [const { AtomicU64::new(0) }; 5];

    let member = |member: &Member| {
        // A list keeps its nodes in chains of eight, so that a key is found without walking all of it.
        let roots = match kind {
            Kind::Tree => 1,
            Kind::List => (nodes / 8).max(1),
            Kind::Hash => nodes,
        };
        let roots = vec![null_mut(); roots as usize];
        let mut structure = Structure { kind, roots, allocator, layout, born: 0, died: 0 };
        let (mut keys, mut stack, mut sums) = (Vec::with_capacity(nodes as usize), Vec::new(), Sums::default());
        let mut random = signature(order.seed, member.number as u64, 0) | 1;
        let (mut full, mut seen, mut walked, mut altered, mut altering) = (true, 0, 0, 0, 0);
        // Key and number of it, so that no key comes twice.
        let fresh = |random: &mut u64, number: u64| (next(random) << 32) | (number & 0xffff_ffff);
        for number in 0..nodes {
            let key = fresh(&mut random, number);
            full &= structure.insert(key);
            keys.push(key);
            if number % 64 == 0 {
                std::thread::yield_now(); // neighbours in time are not neighbours in one thread's structure
            }
        }
        let mut number = nodes;
        let mut expected: u64 = keys.iter().fold(0, |sum, key| sum.wrapping_add(*key));
        member.meet();
        while member.working() && full {
            let start = clock();
            let (count, sum) = black_box(structure.walk(&mut stack));
            let middle = clock();
            sums.add(Sums { found: sum.wrapping_add(count), expected: expected.wrapping_add(nodes) });
            for _ in 0..changes {
                let place = (next(&mut random) % nodes) as usize;
                full &= structure.remove(keys[place]);
                expected = expected.wrapping_sub(keys[place]);
                keys[place] = fresh(&mut random, number);
                number += 1;
                expected = expected.wrapping_add(keys[place]);
                full &= structure.insert(keys[place]);
            }
            (seen, walked) = (seen + count, walked + (middle - start));
            (altered, altering) = (altered + changes, altering + (clock() - middle));
            member.count.add(changes);
            std::thread::yield_now();
        }
        for key in keys {
            full &= structure.remove(key);
        }
        full &= structure.born == structure.died;
        visits.fetch_add(seen, Relaxed);
        walk_ns.fetch_add(walked, Relaxed);
        changed.fetch_add(altered, Relaxed);
        change_ns.fetch_add(altering, Relaxed);
        ops.fetch_add(structure.born, Relaxed);
        member.meet();
        member.meet();
        if full { Ok(sums) } else { Err("a node was lost, or the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team { threads, meetings: 1, measure: order.measure()?, subject: order.subject };
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let per = |time: AtomicU64, count: AtomicU64| time.into_inner() as f64 / count.into_inner().max(1) as f64;
    measurement.set("ns_per_visit", per(walk_ns, visits));
    measurement.set("ns_per_change", per(change_ns, changed));
    Ok(measurement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    #[test]
    fn structures_hold_what_was_put_in_and_not_removed() {
        for (kind, roots) in [(Kind::List, 4), (Kind::Tree, 1), (Kind::Hash, 64)] {
            let layout = Layout::new::<Node>();
            let roots = vec![null_mut(); roots];
            let mut structure = Structure { kind, roots, allocator: &System, layout, born: 0, died: 0 };
            let keys: Vec<u64> = (0..200).map(|n| (n * 7919) % 1009).collect();
            assert!(keys.iter().all(|key| structure.insert(*key)));
            assert!(keys.iter().step_by(2).all(|key| structure.remove(*key)));
            assert!(!structure.remove(keys[0]));
            let rest: u64 = keys.iter().skip(1).step_by(2).sum();
            assert_eq!(structure.walk(&mut Vec::new()), (100, rest));
            assert!(keys.iter().skip(1).step_by(2).all(|key| structure.remove(*key)));
            assert_eq!((structure.walk(&mut Vec::new()), structure.died), ((0, 0), 200));
        }
    }
}
