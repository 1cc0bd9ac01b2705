//! What becomes of the heap where an object may have been freed twice, before that is said and the process ends.
//!
//! Who frees one object twice often frees many so, and lists and transfer caches, where nobody looks, may hold them twice by
//! now, while the spans that they lie in are free and become something else. The program's handler of SIGABRT may use the
//! heap, so what it allocates is apart from all that, and what it frees stays where it is.

use crate::emergency;
use crate::front_end::reclaim;

/// Takes everything out of the lists that are within reach, and has memory come from elsewhere from now on.
pub fn set_heap_apart() {
    if emergency::is_now() {
        return; // a handler found it, in the middle of its own thread's slow path
    }
    let _ = reclaim::drain(); // what it finds is of the same kind
    emergency::begin_for_ever();
}
