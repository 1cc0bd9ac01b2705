//! An allocator that marks each object as it comes and goes, for the plugin of a simulated machine. A workload on it is
//! code of its own: what is timed has no mark in it.

use crate::marks;
use std::alloc::{GlobalAlloc, Layout};

/// An allocator with marks around it. Workloads resize nothing, and what they want zeroed they zero.
pub struct Marked<A: 'static>(pub &'static A);

// SAFETY: that of the allocator within; marks leave alone what an object holds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Marked<A> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by our own contract.
        let object = unsafe { self.0.alloc(layout) };
        if !object.is_null() {
            // SAFETY: a new object is its owner's, has a size above 0, and holds nothing yet.
            unsafe { marks::hand_out(object) };
        }
        object
    }

    #[inline(always)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the object is still its owner's, and has a size above 0.
        unsafe { marks::give_back(object) };
        // SAFETY: by our own contract.
        unsafe { self.0.dealloc(object, layout) };
    }
}

#[cfg(test)]
mod tests {
    use crate::subject::Subject;
    use crate::workload::tests::order;
    use crate::workload::{self, Order};

    /// Marks neither harm what objects hold nor lose one.
    #[test]
    fn marked_work_is_the_same_work() {
        let parameters = [("size_bytes", 64), ("depth", 8), ("measure_ms", 20), ("pinned", 0)];
        let plain = order(&parameters);
        for subject in [Subject::System, crate::subject::BASELINE] {
            let order = Order { workload: "fast-path".into(), subject, ..plain.clone() };
            let measured = workload::run_marked(&order).expect("it runs");
            assert!(measured.ops_alloc > 0 && measured.ops_alloc == measured.ops_free);
            assert_eq!(measured.checksum, measured.checksum_expected);
        }
        let control = Order { subject: Subject::Control, ..plain };
        assert!(workload::run_marked(&control).is_err());
    }
}
