//! A graph: each vertex a block, each of its edges another, and a walk looks at the far end of every edge.

use super::shape::Shape;
use crate::workload::objects::next;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;

/// Edges of a vertex.
const EDGES: usize = 4;

struct Vertex {
    key: u64,
    edges: *mut Edge,
    /// What a program keeps with a vertex.
    rest: [u64; 4],
}

struct Edge {
    next: *mut Edge,
    to: usize,
    weight: u64,
}

/// The graph. A vertex that replaces another takes over the edges that lead to it.
pub struct Graph<A: 'static> {
    allocator: &'static A,
    vertices: Vec<*mut Vertex>,
    born: u64,
    died: u64,
}

impl<A: GlobalAlloc> Graph<A> {
    /// So many places for vertices.
    pub fn new(allocator: &'static A, places: usize) -> Graph<A> {
        Graph { allocator, vertices: vec![null_mut(); places], born: 0, died: 0 }
    }

    fn block<T>(&mut self, value: T) -> *mut T {
        // SAFETY: vertices and edges have a size.
        let block = unsafe { self.allocator.alloc(Layout::new::<T>()) }.cast::<T>();
        if !block.is_null() {
            self.born += 1;
            // SAFETY: new and large enough.
            unsafe { block.write(value) };
        }
        block
    }

    fn release<T>(&mut self, block: *mut T) {
        self.died += 1;
        // SAFETY: `block` made it with this layout, and nothing names it any more.
        unsafe { self.allocator.dealloc(block.cast(), Layout::new::<T>()) };
    }
}

impl<A: GlobalAlloc> Shape for Graph<A> {
    fn insert(&mut self, place: usize, key: u64) -> bool {
        let vertex = self.block(Vertex { key, edges: null_mut(), rest: [key; 4] });
        if vertex.is_null() {
            return false;
        }
        self.vertices[place] = vertex;
        let mut random = key | 1;
        for _ in 0..EDGES {
            let to = (next(&mut random) % self.vertices.len() as u64) as usize;
            // SAFETY: vertices and edges that are linked are live, and this thread's alone.
            let edge = self.block(Edge { next: unsafe { (*vertex).edges }, to, weight: key });
            if edge.is_null() {
                return false;
            }
            // SAFETY: as above.
            unsafe { (*vertex).edges = edge };
        }
        true
    }

    fn remove(&mut self, place: usize, key: u64) -> bool {
        let vertex = std::mem::replace(&mut self.vertices[place], null_mut());
        // SAFETY: as in `insert`.
        if vertex.is_null() || unsafe { (*vertex).key } != key {
            return false;
        }
        // SAFETY: as above.
        let mut edge = unsafe { (*vertex).edges };
        while !edge.is_null() {
            // SAFETY: as above.
            let after = unsafe { (*edge).next };
            self.release(edge);
            edge = after;
        }
        self.release(vertex);
        true
    }

    fn walk(&mut self) -> (u64, u64) {
        let (mut count, mut sum, mut far) = (0, 0u64, 0u64);
        for vertex in self.vertices.iter().filter(|vertex| !vertex.is_null()) {
            // SAFETY: as in `insert`.
            let vertex = unsafe { &**vertex };
            (count, sum) = (count + 1, sum.wrapping_add(vertex.key));
            far ^= vertex.rest[0];
            let mut edge = vertex.edges;
            while !edge.is_null() {
                // SAFETY: as above.
                let Edge { next, to, weight } = unsafe { edge.read() };
                let target = self.vertices[to];
                if !target.is_null() {
                    // SAFETY: as above.
                    far = far.wrapping_add(weight ^ unsafe { (*target).key });
                }
                edge = next;
            }
        }
        black_box(far);
        (count, sum)
    }

    fn blocks(&self) -> (u64, u64) {
        (self.born, self.died)
    }
}
