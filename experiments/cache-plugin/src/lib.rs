//! A plugin of QEMU (the interface of version 1, as QEMU 7.2 has it) that feeds [`perseq_cache_model`] with every load
//! and store of each virtual CPU. `perseq simulate` loads it.
//!
//! The program in the guest marks what is to be counted with instructions that do nothing: `nop` with a displacement
//! nobody else uses (`marks.rs`). Until the first mark no access is looked at, so the guest boots at the emulator's
//! speed.
//!
//! # Self-test
//!
//! Some versions of QEMU name the CPU that translated an instruction instead of the one that executes it. So the guest
//! pins a thread to each CPU in turn and stores to a line whose place in a page is that CPU's number, with an encoding
//! nobody else uses; the plugin compares. What it writes says how many such stores it saw and how many were wrong.
//!
//! # Tiers
//!
//! The plugin interface shows addresses and no registers. So the guest tells where its allocator's metadata lies by two
//! loads for each range, of its first and of its last byte, whose displacement says which tier it is and which end. It
//! does so once, when nothing is counted any more: the program's accesses are counted by line until then.
//!
//! # Objects
//!
//! Where the program is told to, it marks each object that it is handed by a store into its first byte, and each that it
//! gives back by a load of that byte, with displacements nobody else uses. These are not counted as accesses.
//!
//! # Arguments
//!
//! `cpus`, `groups`, `geometry` and `memory` (starts of the nodes' memory, between `+`) as the model takes them, `objects`
//! (1: objects are marked, and the model remembers who touched what), and `out`, the file to write when the emulator ends.
//! All are needed.

mod api;
mod marks;
mod observer;
mod written;

use observer::{Observer, with};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// The version of the interface that this plugin is written for.
// SAFETY: the name is the one that QEMU looks for; nothing else in the process has it.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

/// Called once by QEMU. Not 0: it refuses to start.
///
/// # Safety
///
/// `argv` has `argc` strings.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let argument = |at: usize| {
        // SAFETY: by our own contract.
        let text = unsafe { *argv.add(at) };
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let arguments: Vec<_> = (0..argc.max(0) as usize).map(argument).collect();
    match Observer::new(id, &arguments) {
        Ok(observer) => {
            observer::start(observer);
            register(id);
            0
        }
        Err(error) => {
            eprintln!("perseq-cache-plugin: {error}");
            1
        }
    }
}

/// Asks for all calls. A reset forgets every one of them.
extern "C" fn register(id: u64) {
    // SAFETY: a function of ours, which is never unloaded before the end.
    unsafe { api::qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
    // SAFETY: as above.
    unsafe { api::qemu_plugin_register_atexit_cb(id, at_exit, std::ptr::null_mut()) };
}

/// A block is being translated: instructions get what is to be called when they execute.
extern "C" fn translate(_: u64, block: *mut api::Block) {
    let counting = with(|observer| observer.is_looking());
    // SAFETY: the block is QEMU's for the time of this call.
    let count = unsafe { api::qemu_plugin_tb_n_insns(block) };
    for at in 0..count {
        // SAFETY: `at` is below the number of instructions.
        let instruction = unsafe { api::qemu_plugin_tb_get_insn(block, at) };
        // SAFETY: the instruction is the block's, as are its bytes.
        let length = unsafe { api::qemu_plugin_insn_size(instruction) };
        // SAFETY: as above.
        let bytes = unsafe { api::qemu_plugin_insn_data(instruction) };
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
        // SAFETY: as above.
        let address = unsafe { api::qemu_plugin_insn_vaddr(instruction) };
        if let Some(mark) = marks::mark(bytes) {
            // SAFETY: a function of ours; the number is not a pointer to anybody.
            unsafe { api::qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, 0, mark as *mut c_void) };
        }
        if !counting {
            continue;
        }
        if marks::is_system_call(bytes) {
            // SAFETY: as above.
            unsafe { api::qemu_plugin_register_vcpu_insn_exec_cb(instruction, entered, 0, std::ptr::null_mut()) };
        }
        if let Some((tier, end)) = marks::told(bytes) {
            let call = if end == marks::End::First { begun } else { ended };
            // SAFETY: as above. Loads and stores: asked for loads alone, QEMU 7.2 calls at none.
            unsafe { api::qemu_plugin_register_vcpu_mem_cb(instruction, call, 0, 3, tier as *mut c_void) };
            continue;
        }
        if let Some(passing) = marks::object(bytes) {
            let call = if passing == marks::Passing::HandedOut { handed_out } else { given_back };
            // SAFETY: as above.
            unsafe { api::qemu_plugin_register_vcpu_mem_cb(instruction, call, 0, 3, std::ptr::null_mut()) };
            continue;
        }
        let test = marks::is_test(bytes);
        let what = if test { observer::TEST } else { observer::class(address) };
        // SAFETY: as above. 3: loads and stores.
        unsafe { api::qemu_plugin_register_vcpu_mem_cb(instruction, accessed, 0, 3, what as *mut c_void) };
    }
}

extern "C" fn marked(_: c_uint, mark: *mut c_void) {
    let begin = with(|observer| observer.mark(mark as usize));
    if let Some(id) = begin {
        // Blocks that are translated already have no calls in them: all are translated anew.
        // SAFETY: QEMU allows this from a callback, and calls `register` when no CPU runs.
        unsafe { api::qemu_plugin_reset(id, register) };
    }
}

extern "C" fn entered(_: c_uint, _: *mut c_void) {
    with(Observer::system_call);
}

/// Where in memory an access went. None: to a device, which has no lines.
fn physical(information: u32, address: u64) -> Option<u64> {
    // SAFETY: the information is that of the call that is being answered.
    let at = unsafe { api::qemu_plugin_get_hwaddr(information, address) };
    // SAFETY: it is null or valid until the next call for this CPU.
    if at.is_null() || unsafe { api::qemu_plugin_hwaddr_is_io(at) } {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { api::qemu_plugin_hwaddr_phys_addr(at) })
}

extern "C" fn accessed(cpu: c_uint, information: u32, address: u64, what: *mut c_void) {
    let Some(physical) = physical(information, address) else { return };
    // SAFETY: the information is that of this very call.
    let bytes = 1_u64 << unsafe { api::qemu_plugin_mem_size_shift(information) };
    // SAFETY: as above.
    let write = unsafe { api::qemu_plugin_mem_is_store(information) };
    let access = observer::Seen { cpu: cpu as usize, write, address, physical, bytes };
    with(|observer| observer.access(&access, what as usize));
}

extern "C" fn handed_out(cpu: c_uint, information: u32, address: u64, _: *mut c_void) {
    if let Some(physical) = physical(information, address) {
        with(|observer| observer.object(cpu as usize, physical, marks::Passing::HandedOut));
    }
}

extern "C" fn given_back(cpu: c_uint, information: u32, address: u64, _: *mut c_void) {
    if let Some(physical) = physical(information, address) {
        with(|observer| observer.object(cpu as usize, physical, marks::Passing::GivenBack));
    }
}

extern "C" fn begun(_: c_uint, _: u32, address: u64, tier: *mut c_void) {
    with(|observer| observer.ranges.begin(tier as usize, address));
}

extern "C" fn ended(_: c_uint, _: u32, address: u64, tier: *mut c_void) {
    with(|observer| observer.ranges.last(tier as usize, address));
}

extern "C" fn at_exit(_: u64, _: *mut c_void) {
    if let Err(error) = with(|observer| written::write(observer)) {
        eprintln!("perseq-cache-plugin: {error}");
    }
}
