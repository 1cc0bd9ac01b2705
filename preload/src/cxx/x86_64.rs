//! The frames on x86-64.

/// `new_slow`.
macro_rules! new_slow_frame {
    ($new_handler:ident, $new_aligned:ident, $throw_bad_alloc:ident) => {
        naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "2:",
            "call {new_handler}",
            "test rax, rax",
            "jz 3f",
            "call rax", // may throw, through this frame
            "mov rdi, [rsp + 16]",
            "mov rsi, [rsp + 8]",
            "call {new_aligned}",
            "test rax, rax",
            "jz 2b",
            ".cfi_remember_state",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            ".cfi_restore_state",
            "3:",
            "call {throw_bad_alloc}",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "jmp rax",
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
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "call {malloc}",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "test rax, rax",
            "jz 2f",
            "ret",
            "2:",
            "mov esi, {align}",
            "jmp {new_slow}",
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
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "call {new_aligned}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "test rax, rax",
            "jz 2f",
            "ret",
            "2:",
            "jmp {new_slow}",
            ".cfi_endproc",
            new_aligned = sym $new_aligned,
            new_slow = sym $new_slow,
        )
    };
}
