//! The frames on aarch64. Each keeps its caller's frame and return address, and behind them its arguments.

/// `new_slow`.
macro_rules! new_slow_frame {
    ($new_handler:ident, $new_aligned:ident, $throw_bad_alloc:ident) => {
        naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, -32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "mov x29, sp",
            "stp x0, x1, [sp, 16]",
            "2:",
            "bl {new_handler}",
            "cbz x0, 3f",
            "blr x0", // may throw, through this frame
            "ldp x0, x1, [sp, 16]",
            "bl {new_aligned}",
            "cbz x0, 2b",
            ".cfi_remember_state",
            "ldp x29, x30, [sp], 32",
            ".cfi_restore x29",
            ".cfi_restore x30",
            ".cfi_def_cfa_offset 0",
            "ret",
            ".cfi_restore_state",
            "3:",
            "bl {throw_bad_alloc}",
            "mov x16, x0", // where a function may begin with a landing pad, a jump by this register may go to it
            "ldp x29, x30, [sp], 32",
            ".cfi_restore x29",
            ".cfi_restore x30",
            ".cfi_def_cfa_offset 0",
            "br x16",
            ".cfi_endproc",
            new_handler = sym $new_handler,
            new_aligned = sym $new_aligned,
            throw_bad_alloc = sym $throw_bad_alloc,
        )
    };
}

/// `operator new` of a size.
macro_rules! new_frame {
    ($malloc:ident, $new_slow:ident, $align:ident) => {
        naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, -32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "mov x29, sp",
            "str x0, [sp, 16]",
            "bl {malloc}",
            "ldr x2, [sp, 16]",
            "ldp x29, x30, [sp], 32",
            ".cfi_restore x29",
            ".cfi_restore x30",
            ".cfi_def_cfa_offset 0",
            "cbz x0, 2f",
            "ret",
            "2:",
            "mov x0, x2",
            "mov x1, {align}",
            "b {new_slow}",
            ".cfi_endproc",
            malloc = sym $malloc,
            new_slow = sym $new_slow,
            align = const $align,
        )
    };
}

/// `operator new` of a size and an alignment.
macro_rules! new_aligned_frame {
    ($new_aligned:ident, $new_slow:ident) => {
        naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, -32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "mov x29, sp",
            "stp x0, x1, [sp, 16]",
            "bl {new_aligned}",
            "ldp x2, x1, [sp, 16]",
            "ldp x29, x30, [sp], 32",
            ".cfi_restore x29",
            ".cfi_restore x30",
            ".cfi_def_cfa_offset 0",
            "cbz x0, 2f",
            "ret",
            "2:",
            "mov x0, x2",
            "b {new_slow}",
            ".cfi_endproc",
            new_aligned = sym $new_aligned,
            new_slow = sym $new_slow,
        )
    };
}
