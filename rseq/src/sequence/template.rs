//! How the files of a sequence and its operands become one `asm!`.

/// `asm!` with the shared first and last part around the files of one sequence.
#[cfg(target_arch = "x86_64")]
macro_rules! sequence {
    ($index:ty, $handle:expr, [$($file:literal),*], $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/x86_64/arm.s"),
            $(include_str!(concat!("../../asm/x86_64/", $file)),)*
            include_str!("../../asm/x86_64/abort.s"),
            handle = in(reg) $handle.0,
            RSEQ_CS = const crate::abi::RSEQ_CS - <$index>::TAG,
            INDEX = const <$index>::FIELD - <$index>::TAG,
            SIGNATURE = const crate::abi::SIGNATURE,
            $($operands)*
            options(nostack),
        )
    };
}

/// As on x86-64, but there is no addressing relative to the thread pointer, so the area's address is the
/// operand, and sequences need one register more.
#[cfg(target_arch = "aarch64")]
macro_rules! sequence {
    ($index:ty, $handle:expr, [$($file:literal),*], $($operands:tt)*) => {
        asm!(
            include_str!("../../asm/aarch64/arm.s"),
            $(include_str!(concat!("../../asm/aarch64/", $file)),)*
            include_str!("../../asm/aarch64/abort.s"),
            area = in(reg) crate::arch::thread_pointer() + $handle.0 - <$index>::TAG,
            RSEQ_CS = const crate::abi::RSEQ_CS,
            INDEX = const <$index>::FIELD,
            SIGNATURE = const crate::abi::SIGNATURE,
            id = out(reg) _,
            out("x16") _,
            out("x17") _,
            $($operands)*
            options(nostack),
        )
    };
}

/// What the cell operand of a slab's sequences is: an offset from the thread pointer.
#[cfg(target_arch = "x86_64")]
macro_rules! cell_operand {
    ($cell:expr) => {
        $cell.offset()
    };
}

/// What the cell operand of a slab's sequences is: an address.
#[cfg(target_arch = "aarch64")]
macro_rules! cell_operand {
    ($cell:expr) => {
        crate::arch::thread_pointer() + $cell.offset()
    };
}

/// A sequence on a list of the slab that a cell names.
macro_rules! slab_sequence {
    ($file:literal, $index:ty, $handle:expr, $cell:expr, $list:expr, $($operands:tt)*) => {
        sequence!($index, $handle, [$file],
            cell = in(reg) cell_operand!($cell),
            list = in(reg) $list,
            tmp = out(reg) _,
            TOPS = const crate::slab::TOPS,
            $($operands)*
        )
    };
}

/// As `slab_sequence`, for one that answers in `outcome`. On x86-64 an address in the slab is kept in there: it is
/// even, and so are all outcomes that are not a miss.
#[cfg(target_arch = "x86_64")]
macro_rules! outcome_sequence {
    ($file:literal, $index:ty, $handle:expr, $cell:expr, $list:expr, $outcome:ident, $($operands:tt)*) => {
        slab_sequence!($file, $index, $handle, $cell, $list,
            outcome = out(reg) $outcome,
            MOVED = const super::MOVED,
            UNFIT = const super::UNFIT,
            $($operands)*
        )
    };
}

/// As `slab_sequence`, for one that answers in `outcome`.
#[cfg(target_arch = "aarch64")]
macro_rules! outcome_sequence {
    ($file:literal, $index:ty, $handle:expr, $cell:expr, $list:expr, $outcome:ident, $($operands:tt)*) => {
        slab_sequence!($file, $index, $handle, $cell, $list,
            slab = out(reg) _,
            outcome = out(reg) $outcome,
            MOVED = const super::MOVED,
            UNFIT = const super::UNFIT,
            $($operands)*
        )
    };
}

/// A sequence on a word of the index's row.
#[cfg(target_arch = "x86_64")]
macro_rules! row_sequence {
    ($file:literal, $index:ty, $row:ty, $handle:expr, $rows:expr, $word:expr, $($operands:tt)*) => {
        sequence!($index, $handle, ["row.s", $file],
            base = in(reg) $rows.base(),
            rows = in(reg) $rows.count(),
            word = in(reg) $word,
            tmp = out(reg) _,
            SHIFT = const Rows::<$row, $index>::SHIFT,
            MOVED = const super::MOVED,
            $($operands)*
        )
    };
}

/// A sequence on a word of the index's row.
#[cfg(target_arch = "aarch64")]
macro_rules! row_sequence {
    ($file:literal, $index:ty, $row:ty, $handle:expr, $rows:expr, $word:expr, $($operands:tt)*) => {
        sequence!($index, $handle, ["row.s", $file],
            base = in(reg) $rows.base(),
            rows = in(reg) $rows.count(),
            word = in(reg) $word,
            tmp = out(reg) _,
            SHIFT = const Rows::<$row, $index>::SHIFT,
            MOVED = const super::MOVED,
            DONE = const super::DONE,
            $($operands)*
        )
    };
}
