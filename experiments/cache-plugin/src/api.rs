//! What of QEMU's plugin interface is used, as `qemu-plugin.h` of version 1 declares it.

use std::ffi::{c_int, c_uint, c_void};

/// A block of instructions being translated.
#[repr(C)]
pub struct Block {
    _private: [u8; 0],
}

/// An instruction of a block.
#[repr(C)]
pub struct Instruction {
    _private: [u8; 0],
}

/// The physical side of an access.
#[repr(C)]
pub struct Physical {
    _private: [u8; 0],
}

type Simple = extern "C" fn(id: u64);
type Translated = extern "C" fn(id: u64, block: *mut Block);
type Executed = extern "C" fn(cpu: c_uint, data: *mut c_void);
type Accessed = extern "C" fn(cpu: c_uint, information: u32, address: u64, data: *mut c_void);
type Ended = extern "C" fn(id: u64, data: *mut c_void);

unsafe extern "C" {
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, call: Translated);
    pub fn qemu_plugin_register_atexit_cb(id: u64, call: Ended, data: *mut c_void);
    pub fn qemu_plugin_reset(id: u64, call: Simple);
    pub fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub fn qemu_plugin_tb_get_insn(block: *const Block, at: usize) -> *mut Instruction;
    pub fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const c_void;
    pub fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    pub fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        call: Executed,
        registers: c_int,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Instruction,
        call: Accessed,
        registers: c_int,
        direction: c_int,
        data: *mut c_void,
    );
    pub fn qemu_plugin_mem_size_shift(information: u32) -> c_uint;
    pub fn qemu_plugin_mem_is_store(information: u32) -> bool;
    pub fn qemu_plugin_get_hwaddr(information: u32, address: u64) -> *mut Physical;
    pub fn qemu_plugin_hwaddr_is_io(at: *const Physical) -> bool;
    pub fn qemu_plugin_hwaddr_phys_addr(at: *const Physical) -> u64;
}
