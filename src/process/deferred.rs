//! What was freed where no lock could be waited for goes where it belongs, on the next slow path that can wait. It was
//! counted when it was freed.

use core::ptr::NonNull;

use crate::emergency;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::misuse::{Misuse, judge};
use crate::page_heap::directory::class_at;
use crate::page_heap::large;
use crate::profile::samples;

/// Frees all of it, unless this thread cannot wait now either.
#[cold]
#[inline(never)]
pub fn free_deferred() {
    if !emergency::is_now() {
        emergency::take_deferred().for_each(free);
    }
}

fn free(block: NonNull<u8>) {
    let address = block.addr().get();
    let class = class_at(address).or_else(|| emergency::object_at(address).map(|(class, _)| class));
    match class {
        Some(class) if hardened::on() => hardened::free_counted(class, block),
        Some(class) => judge(BACK_END.middle(class).insert_range(&[block.as_ptr()])),
        None => {
            let run = large::at(&BACK_END.pages, address);
            run.into_iter().for_each(samples::note_late_free);
            match run {
                Some(id) if hardened::on() => hardened::free_large(id),
                // SAFETY: a large block that was given up.
                Some(id) => unsafe { BACK_END.pages.release(id, false) },
                None => Misuse::DoubleFree.end(), // it was ours when it was put here
            }
        }
    }
}
