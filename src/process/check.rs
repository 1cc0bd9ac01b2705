//! The named laws, walked: every structure of the process is held against what its file says of it.
//!
//! Debug builds only. A broken law ends the process with its name, and a handler of SIGABRT does not run: something was
//! written that should not have been.

/// Walks every structure of the process and ends it where a law does not hold. In debug builds; otherwise nothing happens.
///
/// For tests, at rest: while no other thread allocates or frees.
#[doc(hidden)]
pub fn check() {
    #[cfg(debug_assertions)]
    walk();
}

#[cfg(debug_assertions)]
fn walk() {
    use crate::emergency;
    use crate::front_end::{budget, registry};
    use crate::hardened;
    use crate::message::law;
    use crate::middle::back_end::BACK_END;
    use crate::middle::spare_arrays::SPARE_ARRAYS;
    use crate::size_class::{CLASSES, SizeClass};

    if !crate::decided::is_ready() {
        return;
    }
    registry::check();
    let (mut cached, mut capacity_bytes) = ([0; CLASSES], 0);
    for cache in registry::all() {
        cache.check(&cache.shape().lock());
        capacity_bytes += cache.holdings(|class, objects| cached[class.index()] += objects).capacity_bytes;
    }
    budget::check(capacity_bytes);
    hardened::check();
    BACK_END.check();
    SPARE_ARRAYS.check();
    for class in SizeClass::all() {
        let kept = cached[class.index()] + BACK_END.transfer.counts(class).length + hardened::quarantined(class);
        let live = BACK_END.central[class.index()].totals(class).live + emergency::totals(class).made as usize;
        law!(kept <= live, "conserved: what caches, transfer caches and the quarantine keep was handed out");
    }
}
