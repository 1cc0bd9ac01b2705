//! The end of a thread, in the modes where threads have caches.

use core::ffi::c_void;

use crate::emergency;
use crate::front_end::reclaim;
use crate::front_end::registry;
use crate::front_end::thread;
use crate::misuse::judge;

/// A key of thread-specific data whose destructor empties the cache of the thread that ends. `None` if the process has
/// no key left.
pub fn key() -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: `key` is ours to be written; the destructor is this module's and lives for ever.
    (unsafe { libc::pthread_key_create(&mut key, Some(on_thread_exit)) } == 0).then_some(key)
}

/// Gives a key back that no thread has used.
pub fn give_back(key: libc::pthread_key_t) {
    // SAFETY: the key is ours.
    unsafe { libc::pthread_key_delete(key) };
}

/// Runs among the destructors of thread-specific data, after those of C++ and Rust thread locals. What later
/// ones allocate or free goes past the caches.
extern "C" fn on_thread_exit(_: *mut c_void) {
    give_up_cache();
}

/// Empties the calling thread's own cache, if it has one, and gives it no other. Where no lock can be waited for, what
/// is in it stays.
pub fn give_up_cache() {
    if let Some(cache) = thread::present_cache() {
        if emergency::is_now() {
            return thread::retire();
        }
        let stripped = reclaim::empty_own(cache);
        thread::retire();
        if cache.capacity_bytes() == 0 {
            registry::retire(cache);
        }
        judge(stripped);
    }
}
