//! Finds the rseq area of this process's threads: libc's, else our own, else the reason why not.
//!
//! glibc registers an area for every thread before user code runs (2.35 and later). Registering a
//! second one fails, so that area is adopted. Without it, each thread has an area of ours in static
//! TLS, registered by [`Registration::ensure_thread`] the first time the thread needs it.

use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::auxvec::{AT_RSEQ_ALIGN, AT_RSEQ_FEATURE_SIZE};

use crate::abi::{self, Area};
use crate::index::Index;

// Our own area: static TLS, `cpu_id_start` 0, `cpu_id` -1 until the kernel takes over. `mm_cid` is -1
// as well, so that an unregistered thread has no index of either kind.
global_asm!(
    ".pushsection .tdata.rseq_own_area, \"awT\", @progbits",
    ".balign 64",
    ".globl rseq_own_area",
    ".hidden rseq_own_area",
    ".type rseq_own_area, @object",
    "rseq_own_area: .long 0, -1, 0, 0, 0, 0, -1, 0",
    ".zero 32",
    ".size rseq_own_area, 64",
    ".popsection",
    // libc's description of its area. Weak: a libc without one leaves null.
    ".weak __rseq_offset",
    ".weak __rseq_size",
    ".weak __rseq_flags",
);

/// Who registered the area with the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registrant {
    /// The C library, for every thread before it runs user code.
    Libc,
    /// This crate, thread by thread.
    Own,
}

/// Where every thread's area is and what the kernel writes into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Who registered it.
    pub registrant: Registrant,
    /// Bytes from the thread pointer to the area. Any sign.
    pub offset: isize,
    /// Registered length in bytes. 32 is version 1; longer ones get the kernel's optimized mode (Linux 7.0).
    pub length: u32,
    /// Bytes the kernel fills, from `AT_RSEQ_FEATURE_SIZE`; 20 on kernels that do not say.
    pub feature_size: u32,
    /// Alignment the kernel asks for, from `AT_RSEQ_ALIGN`; 32 on kernels that do not say.
    pub align: u32,
    /// libc's `__rseq_flags`; 0 for our own.
    pub flags: u32,
}

impl Registration {
    /// Whether [`Area::node_id`] is filled.
    #[must_use]
    pub fn has_node_id(&self) -> bool {
        self.feature_size >= abi::NODE_ID_END
    }

    /// Whether [`Area::mm_cid`] is filled.
    #[must_use]
    pub fn has_mm_cid(&self) -> bool {
        self.feature_size >= abi::MM_CID_END
    }

    /// The handle that sequences indexed by `I` take.
    #[must_use]
    pub fn handle<I: Index>(&self) -> Handle {
        Handle(self.offset + I::TAG)
    }

    /// Registers the calling thread if that is ours to do and has not been done.
    ///
    /// Costs one system call the first time in a thread, a load afterwards.
    ///
    /// # Errors
    ///
    /// The thread has no area: libc failed to register it, or the kernel refused to.
    pub fn ensure_thread(&self) -> Result<(), Unavailable> {
        // SAFETY: `offset` locates the calling thread's area, registered or not.
        let cpu = unsafe { load(self.offset + abi::CPU_ID) };
        if (cpu as i32) >= 0 {
            return Ok(());
        }
        match self.registrant {
            Registrant::Libc => Err(Unavailable::ThreadNotRegistered),
            Registrant::Own => register_own(self.length),
        }
    }
}

/// Why this process has no restartable sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// The kernel (or an emulator in its place) has no rseq system call.
    NotImplemented,
    /// The kernel refused the registration with this errno, for instance by a seccomp filter.
    Refused(i32),
    /// libc registers areas but this thread's was refused.
    ThreadNotRegistered,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::NotImplemented => f.write_str("the kernel has no rseq system call (ENOSYS)"),
            Unavailable::Refused(libc::EPERM) => f.write_str("rseq registration was refused (EPERM)"),
            Unavailable::Refused(errno) => write!(f, "rseq registration was refused (errno {errno})"),
            Unavailable::ThreadNotRegistered => f.write_str("libc could not register this thread"),
        }
    }
}

/// An area's offset from the thread pointer and the index its user wants, in one word.
///
/// The low two bits name the index ([`Index::TAG`]), which areas' alignment leaves free; the word 0
/// is never a handle. So a program can keep "which index, if any" and "where" in one variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Handle(pub(crate) isize);

impl Handle {
    /// The handle as a word, never 0.
    #[must_use]
    pub fn to_bits(self) -> isize {
        self.0
    }

    /// The handle whose word is `bits`, if it is one for index `I`.
    #[inline(always)]
    #[must_use]
    pub fn from_bits<I: Index>(bits: isize) -> Option<Handle> {
        if bits & I::TAG != 0 { Some(Handle(bits)) } else { None }
    }

    /// The calling thread's index now: a plain load, out of date as soon as it is read.
    /// [`abi::UNREGISTERED`] in a thread that is not registered.
    ///
    /// # Safety
    ///
    /// * The handle comes from [`Registration::handle`] with the same `I`.
    #[inline(always)]
    #[must_use]
    pub unsafe fn index<I: Index>(self) -> u32 {
        // SAFETY: the handle locates this thread's area, by our own contract.
        unsafe { load(self.0 - I::TAG + I::FIELD) }
    }
}

/// Looks for an area, registering the calling thread if it has to. Idempotent.
///
/// # Errors
///
/// The typed reason why sequences cannot run in this process.
pub fn probe() -> Result<Registration, Unavailable> {
    let feature_size = auxiliary(AT_RSEQ_FEATURE_SIZE, abi::ORIGINAL_FEATURE_SIZE);
    let align = auxiliary(AT_RSEQ_ALIGN, 32);
    if let Some(found) = libc_area(feature_size, align) {
        return Ok(found);
    }
    let length = abi::ORIGINAL_LENGTH.max(feature_size.min(size_of::<Area>() as u32));
    register_own(length)?;
    Ok(Registration {
        registrant: Registrant::Own,
        offset: own_area_offset(),
        length,
        feature_size: feature_size.min(length),
        align,
        flags: 0,
    })
}

/// Sequences of this process that the kernel aborted and that were restarted, since it started.
pub fn restarts() -> u64 {
    let count: u64;
    // SAFETY: reads one aligned word that this crate defines.
    unsafe {
        asm!("mov {}, qword ptr [rip + rseq_sequence_restarts]", out(reg) count,
             options(nostack, preserves_flags, readonly));
    }
    count
}

fn auxiliary(key: u32, otherwise: u32) -> u32 {
    // SAFETY: getauxval has no preconditions.
    match unsafe { libc::getauxval(key.into()) } as u32 {
        0 => otherwise,
        value => value,
    }
}

/// libc's registration, if it has one that is alive in this thread.
fn libc_area(feature_size: u32, align: u32) -> Option<Registration> {
    let (offset, size, flags): (*const isize, *const u32, *const u32);
    // SAFETY: loads three addresses from the global offset table, null where libc has no such symbol.
    unsafe {
        asm!(
            "mov {}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {}, qword ptr [rip + __rseq_size@GOTPCREL]",
            "mov {}, qword ptr [rip + __rseq_flags@GOTPCREL]",
            out(reg) offset, out(reg) size, out(reg) flags,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    if offset.is_null() || size.is_null() || flags.is_null() {
        return None;
    }
    // SAFETY: libc defines the three variables with these types and never changes them after start-up.
    let (offset, size, flags) = unsafe { (*offset, *size, *flags) };
    // SAFETY: libc's area of this thread is at this offset even if the kernel refused it.
    if size == 0 || (unsafe { load(offset + abi::CPU_ID) } as i32) < 0 {
        return None;
    }
    // glibc up to 2.40 registers 32 bytes and reports 20 or 32; the kernel fills what it knows of the 32.
    let length = if size <= abi::ORIGINAL_LENGTH { abi::ORIGINAL_LENGTH } else { size };
    Some(Registration {
        registrant: Registrant::Libc,
        offset,
        length,
        feature_size: feature_size.min(length),
        align,
        flags,
    })
}

fn register_own(length: u32) -> Result<(), Unavailable> {
    // The kernel's answer is remembered: a refused process does not ask again for each thread.
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    let refused = REFUSED.load(Relaxed);
    if refused != 0 {
        return Err(unavailable(refused as i32));
    }
    let area = thread_pointer() + own_area_offset();
    // SAFETY: the area is this thread's own static TLS, aligned to 64, and lives as long as the thread.
    let answer =
        unsafe { libc::syscall(linux_raw_sys::general::__NR_rseq as libc::c_long, area, length, 0, abi::SIGNATURE) };
    if answer == 0 {
        return Ok(());
    }
    // SAFETY: errno is this thread's.
    match unsafe { *libc::__errno_location() } {
        libc::EBUSY => Ok(()), // this very area, registered before
        errno => {
            REFUSED.store(errno as u32, Relaxed);
            Err(unavailable(errno))
        }
    }
}

fn unavailable(errno: i32) -> Unavailable {
    if errno == libc::ENOSYS { Unavailable::NotImplemented } else { Unavailable::Refused(errno) }
}

/// The register TLS is addressed from.
fn thread_pointer() -> isize {
    let pointer: isize;
    // SAFETY: the first word of the thread control block points to itself in every x86-64 ABI.
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, pure, readonly));
    }
    pointer
}

fn own_area_offset() -> isize {
    let offset: isize;
    // SAFETY: loads the link-time offset of a TLS symbol this module defines.
    unsafe {
        asm!("mov {}, qword ptr [rip + rseq_own_area@GOTTPOFF]", out(reg) offset,
             options(nostack, preserves_flags, pure, readonly));
    }
    offset
}

/// Loads a field of the calling thread's area.
///
/// # Safety
///
/// * `offset` from the thread pointer is a readable, aligned u32 of this thread.
#[inline(always)]
unsafe fn load(offset: isize) -> u32 {
    let value: u32;
    // SAFETY: by our own contract. Not `pure`: the kernel changes the field between any two reads.
    unsafe {
        asm!("mov {:e}, dword ptr fs:[{}]", out(reg) value, in(reg) offset,
             options(nostack, preserves_flags, readonly));
    }
    value
}
