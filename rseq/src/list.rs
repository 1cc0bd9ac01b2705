//! A pool of nodes that threads put back and take, mostly on the same CPU.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::access::Access;
use crate::index::{CpuId, Index};
use crate::rows::{NoMemory, Row, Rows};
use crate::stop::StopError;
use crate::{local, sequence};

/// A value with the word that links it into a [`PerCpuList`].
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Node<T> {
    next: usize,
    /// The user's part.
    pub value: T,
}

impl<T> Node<T> {
    /// A node on no list.
    pub const fn new(value: T) -> Self {
        Node { next: 0, value }
    }
}

/// A linked stack of nodes per index. Nodes are lent to it for `'a` and come back one by one.
///
/// Pushing and popping is one sequence each ([`sequence::linked_push`], [`sequence::linked_pop`]). Without restartable
/// sequences all threads share one stack under a lock.
///
/// Needs Linux 4.18, or 6.3 for [`crate::MmCid`], 5.10 for fences; runs without them as said.
///
/// ```
/// use rseq::{Node, PerCpuList};
///
/// let mut nodes = [Node::new(1), Node::new(2)];
/// let list = PerCpuList::<i32>::new()?;
/// for node in &mut nodes {
///     list.push(node);
/// }
/// let mut sum = 0;
/// list.drain(|node| sum += node.value)?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PerCpuList<'a, T, I: Index = CpuId> {
    rows: Rows<AtomicU64, I>,
    access: Access<I>,
    /// Invariant in `'a`: what goes in for a shorter time must not come out for a longer one.
    _nodes: PhantomData<Cell<&'a mut Node<T>>>,
}

// SAFETY: a node that is pushed is nobody's until one thread pops it, so sharing the list is sending nodes.
unsafe impl<T: Send, I: Index> Sync for PerCpuList<'_, T, I> {}
// SAFETY: the list holds nodes that may be sent, and nothing that belongs to a thread.
unsafe impl<T: Send, I: Index> Send for PerCpuList<'_, T, I> {}

impl<T, I: Index> fmt::Debug for PerCpuList<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuList").field("access", &self.access).finish_non_exhaustive()
    }
}

const HEAD: usize = Row::<AtomicU64>::VALUE;

impl<'a, T, I: Index> PerCpuList<'a, T, I> {
    /// An empty list.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: no address space.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(PerCpuList { rows: Rows::new()?, access: Access::new(), _nodes: PhantomData })
    }

    /// Lends `node` to the list of this index.
    #[inline]
    pub fn push(&self, node: &'a mut Node<T>) {
        let node = NonNull::from(node).cast();
        // SAFETY: the handle is of index `I`; the node is exclusively ours, 8-aligned, and its link is its first word.
        let push = |handle| unsafe { sequence::linked_push(handle, &self.rows, HEAD, node) };
        if self.access.run(push).is_none() {
            // SAFETY: in there we are the only user; the node as above.
            self.rows.with_overflow(|head| unsafe { local::linked_push(head, node) });
        }
    }

    /// Takes the node that was pushed last on this index. `None`: there is none *here*; other indices may
    /// have some, see [`PerCpuList::drain`].
    #[inline]
    pub fn pop(&self) -> Option<&'a mut Node<T>> {
        // SAFETY: the handle is of index `I`; who takes nodes from another row stops it first.
        let pop = |handle| unsafe { sequence::linked_pop(handle, &self.rows, HEAD) };
        let node = match self.access.run(pop) {
            Some(answer) => answer.ok()?,
            // SAFETY: in there we are the only user.
            None => self.rows.with_overflow(|head| unsafe { local::linked_pop(head) })?,
        };
        // SAFETY: a node that was pushed as `&'a mut Node<T>`, on no list any more.
        Some(unsafe { node.cast().as_mut() })
    }

    /// Takes all nodes of this index.
    #[inline]
    pub fn pop_all(&self) -> Chain<'a, T> {
        // SAFETY: the handle is of index `I`.
        let pop_all = |handle| unsafe { sequence::linked_pop_all(handle, &self.rows, HEAD) };
        let first = match self.access.run(pop_all) {
            Some(answer) => answer.ok(),
            None => self.rows.with_overflow(local::linked_pop_all),
        };
        Chain { first, _nodes: PhantomData }
    }

    /// Gives every node of every index to `user`. One [`fence`](crate::fence) per row that is not empty. Waits for
    /// other drains, so not for signal handlers.
    ///
    /// # Errors
    ///
    /// [`StopError::Fence`]: the kernel refuses the fence it granted before, by a filter that was set since, or for
    /// want of memory. Nodes of the rows it was refused for stay there, and can be popped; `user` has those of all
    /// others.
    pub fn drain(&self, mut user: impl FnMut(&'a mut Node<T>)) -> Result<(), StopError> {
        let mut outcome = Ok(());
        for index in 0..self.rows.count() {
            if self.rows.peek(index).is_none_or(|head| head.load(Relaxed) == 0) {
                continue;
            }
            match self.rows.stop_in_turn(index).map(|row| local::linked_pop_all(&row)) {
                Ok(first) => Chain { first, _nodes: PhantomData }.for_each(&mut user),
                Err(why) => outcome = Err(why),
            }
        }
        let first = self.rows.with_overflow(local::linked_pop_all);
        Chain { first, _nodes: PhantomData }.for_each(user);
        outcome
    }

    /// Whether pushes and pops are sequences. If not, they take a lock.
    #[must_use]
    pub fn is_per_cpu(&self) -> bool {
        self.access.is_available()
    }
}

/// Nodes that were taken together, newest first. Those it is dropped with are not lost to Rust's rules, but
/// nobody has them until `'a` ends.
#[derive(Debug)]
pub struct Chain<'a, T> {
    first: Option<NonNull<usize>>,
    _nodes: PhantomData<&'a mut Node<T>>,
}

impl<'a, T> Iterator for Chain<'a, T> {
    type Item = &'a mut Node<T>;

    fn next(&mut self) -> Option<&'a mut Node<T>> {
        let node = self.first?;
        // SAFETY: a node taken from a list, whose first word is its link.
        self.first = NonNull::new(unsafe { node.read() } as *mut usize);
        // SAFETY: it was pushed as `&'a mut Node<T>` and is on no list any more.
        Some(unsafe { node.cast().as_mut() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_a_row_uses_the_overflow_row() {
        let mut nodes = [Node::new(1), Node::new(2), Node::new(4)];
        let list = PerCpuList::<i32> {
            rows: Rows::with_count(0).expect("address space"),
            access: Access::new(),
            _nodes: PhantomData,
        };
        nodes.iter_mut().for_each(|node| list.push(node));
        assert_eq!(list.pop().map(|node| node.value), Some(4));
        let mut sum = 0;
        assert_eq!(list.drain(|node| sum += node.value), Ok(()));
        assert_eq!((sum, list.pop().is_none(), list.pop_all().count()), (3, true, 0));
    }
}
