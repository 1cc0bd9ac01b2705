//! E14: lists, trees, hash tables, graphs and an interpreter's values that threads build and change side by side, and
//! how fast they are walked.

mod btree;
mod graph;
mod shape;
mod values;

use super::objects::{Sums, next, signature};
use super::order::Order;
use super::team::thread_ns;
use super::team::{Member, Team, allowed};
use crate::host::cpu::last_level_bytes;
use crate::measurement::{Cache, Measurement};
use btree::BTree;
use graph::Graph;
use shape::Shape;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use values::Values;

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
    stack: Vec<*mut Node>,
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
}

impl<A: GlobalAlloc> Shape for Structure<A> {
    /// To the front of a list or chain, to a leaf of a tree.
    fn insert(&mut self, _: usize, key: u64) -> bool {
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

    fn remove(&mut self, _: usize, key: u64) -> bool {
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

    fn walk(&mut self) -> (u64, u64) {
        let (mut nodes, mut sum) = (0, 0u64);
        let stack = &mut self.stack;
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

    fn blocks(&self) -> (u64, u64) {
        (self.born, self.died)
    }
}

/// The numbers of the structures, what they are, and about how many bytes each of their keys takes.
const STRUCTURES: [(u64, &str, u64); 6] = [
    (1, "list", 64),
    (2, "tree", 64),
    (3, "hash table", 72),
    (4, "B-tree", 28),
    (5, "graph", 168),
    (6, "values of an interpreter", 200),
];

/// Keys of a thread: as many as asked for, or as many as exceed the last-level caches by so many percent, within a bound.
fn keys(order: &Order, bytes: u64, threads: u64) -> Result<u64, String> {
    let percent = order.parameters.get("llc_percent").copied().unwrap_or(0);
    if percent == 0 {
        return Ok(order.get("nodes")?.max(1));
    }
    let most = order.parameters.get("most_mib").copied().unwrap_or(u64::MAX >> 20) << 20;
    let wanted = (last_level_bytes()? * percent / 100).min(most);
    Ok((wanted / bytes / threads).max(1))
}

fn shape<A: GlobalAlloc>(allocator: &'static A, number: u64, layout: Layout, nodes: u64) -> Box<dyn Shape> {
    let places = nodes as usize;
    // A list keeps its nodes in chains of eight, so that a key is found without walking all of it.
    let (kind, roots) = match number {
        4 => return Box::new(BTree::new(allocator)),
        5 => return Box::new(Graph::new(allocator, places)),
        6 => return Box::new(Values::new(allocator, places)),
        1 => (Kind::List, (places / 8).max(1)),
        2 => (Kind::Tree, 1),
        _ => (Kind::Hash, places),
    };
    let roots = vec![null_mut(); roots];
    Box::new(Structure { kind, roots, allocator, layout, stack: Vec::new(), born: 0, died: 0 })
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let number = order.get("structure")?;
    let (_, _, bytes) = *STRUCTURES
        .iter()
        .find(|(known, ..)| *known == number)
        .ok_or_else(|| format!("structure {number}: expected 1 to {}", STRUCTURES.len()))?;
    let threads = order.threads(allowed()?.len())?;
    let nodes = keys(order, bytes, threads as u64)?;
    let size = (order.get("node_bytes")? as usize).max(size_of::<Node>());
    let layout = Layout::from_size_align(size, 8).map_err(|error| format!("node_bytes {size}: {error}"))?;
    let changes = order.get("changes_per_walk")?;
    thread_ns()?;
    let clock = || thread_ns().unwrap_or_default(); // it cannot fail once it has worked
    let [visits, walk_ns, changed, change_ns, ops] = [const { AtomicU64::new(0) }; 5];

    let member = |member: &Member| {
        let mut structure = shape(allocator, number, layout, nodes);
        let (mut keys, mut sums) = (Vec::with_capacity(nodes as usize), Sums::default());
        let mut random = signature(order.seed, member.number as u64, 0) | 1;
        let (mut full, mut seen, mut walked, mut altered, mut altering) = (true, 0, 0, 0, 0);
        // Key and number of it, so that no key comes twice.
        let fresh = |random: &mut u64, number: u64| (next(random) << 32) | (number & 0xffff_ffff);
        for number in 0..nodes {
            let key = fresh(&mut random, number);
            full &= structure.insert(keys.len(), key);
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
            let (count, sum) = black_box(structure.walk());
            let middle = clock();
            sums.add(Sums { found: sum.wrapping_add(count), expected: expected.wrapping_add(nodes) });
            for _ in 0..changes {
                let place = (next(&mut random) % nodes) as usize;
                full &= structure.remove(place, keys[place]);
                expected = expected.wrapping_sub(keys[place]);
                keys[place] = fresh(&mut random, number);
                number += 1;
                expected = expected.wrapping_add(keys[place]);
                full &= structure.insert(place, keys[place]);
            }
            (seen, walked) = (seen + count, walked + (middle - start));
            (altered, altering) = (altered + changes, altering + (clock() - middle));
            member.count.add(changes);
            std::thread::yield_now();
        }
        for (place, key) in keys.into_iter().enumerate() {
            full &= structure.remove(place, key);
        }
        let (born, died) = structure.blocks();
        full &= born == died;
        visits.fetch_add(seen, Relaxed);
        walk_ns.fetch_add(walked, Relaxed);
        changed.fetch_add(altered, Relaxed);
        change_ns.fetch_add(altering, Relaxed);
        ops.fetch_add(born, Relaxed);
        member.meet();
        member.meet();
        if full { Ok(sums) } else { Err("a node was lost, or the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team::new(order, threads, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let per = |time: AtomicU64, count: AtomicU64| time.into_inner() as f64 / count.into_inner().max(1) as f64;
    measurement.set("ns_per_visit", per(walk_ns, visits));
    measurement.set("ns_per_change", per(change_ns, changed));
    measurement.set("working_set_bytes", (nodes * bytes * threads as u64) as f64);
    if let Ok(bytes) = last_level_bytes() {
        measurement.set("last_level_bytes", bytes as f64);
    }
    Ok(measurement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    #[test]
    fn structures_hold_what_was_put_in_and_not_removed() {
        for (number, name, _) in STRUCTURES {
            // A prime, so that all keys differ and come in no order.
            let keys: Vec<u64> = (0..5000).map(|n| (n * 7919) % 10_007).collect();
            let mut shape = shape(&System, number, Layout::new::<Node>(), keys.len() as u64);
            for round in 0..3 {
                for (place, key) in keys.iter().enumerate() {
                    assert!(shape.insert(place, *key), "{name}, {round}");
                }
                assert_eq!(shape.walk(), (5000, keys.iter().sum()), "{name}, {round}");
                for place in (0..keys.len()).step_by(2) {
                    assert!(shape.remove(place, keys[place]), "{name}, {round}");
                }
                assert!(!shape.remove(0, keys[0]), "{name}, {round}");
                let rest: u64 = keys.iter().skip(1).step_by(2).sum();
                assert_eq!(shape.walk(), (2500, rest), "{name}, {round}");
                for place in (1..keys.len()).step_by(2) {
                    assert!(shape.remove(place, keys[place]), "{name}, {round}");
                }
                let (born, died) = shape.blocks();
                assert!(shape.walk() == (0, 0) && born == died && born > 0, "{name}, {round}: {born}, {died}");
            }
        }
    }

    /// The bytes that a key is said to take decide whether a working set exceeds a cache.
    #[test]
    fn keys_take_about_as_many_bytes_as_is_said() {
        struct Counting(AtomicU64);
        // SAFETY: all is left to the system's allocator.
        unsafe impl GlobalAlloc for Counting {
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                self.0.fetch_add(layout.size() as u64, Relaxed);
                // SAFETY: by our own contract.
                unsafe { System.alloc(layout) }
            }
            unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
                // SAFETY: by our own contract.
                unsafe { System.dealloc(block, layout) }
            }
        }
        for (number, name, said) in STRUCTURES {
            let counting: &'static Counting = Box::leak(Box::new(Counting(AtomicU64::new(0))));
            let layout = Layout::from_size_align(64, 8).unwrap();
            let mut shape = shape(counting, number, layout, 10_000);
            let mut random = 1;
            (0..10_000).for_each(|place| assert!(shape.insert(place, next(&mut random) << 16 | place as u64)));
            let found = counting.0.load(Relaxed) as f64 / 1e4;
            assert!((0.7..1.4).contains(&(said as f64 / found)), "{name}: {found} bytes to a key, {said} are said");
        }
    }
}
