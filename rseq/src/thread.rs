//! Finds the rseq area of this process's threads: libc's, else our own, else the reason why not.
//!
//! glibc registers an area for every thread before user code runs (2.35 and later). Registering a
//! second one fails, so that area is adopted. Without it, each thread has an area of ours in static
//! TLS ([`own`]), registered by [`Registration::ensure_thread`] the first time the thread needs it.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::auxvec::{AT_RSEQ_ALIGN, AT_RSEQ_FEATURE_SIZE};

use crate::abi;
use crate::arch::{self, load_u32, own_area_offset};
use crate::index::Index;
use crate::kernel::{self, Mode, Release};
use crate::own::{self, Refusal};

/// Who registered the area with the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registrant {
    /// The C library, for every thread before it runs user code.
    Libc,
    /// This crate, thread by thread.
    Own,
}

/// Where every thread's area is and what the kernel writes into it. Made by [`probe`] only, since reading the area
/// relies on its being there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    registrant: Registrant,
    offset: isize,
    length: u32,
    feature_size: u32,
    align: u32,
    flags: u32,
}

impl Registration {
    /// Who registered the area.
    #[must_use]
    pub fn registrant(&self) -> Registrant {
        self.registrant
    }

    /// Bytes from the thread pointer to the area. Any sign.
    #[must_use]
    pub fn offset(&self) -> isize {
        self.offset
    }

    /// Registered length in bytes. 32 is version 1; longer ones get the kernel's optimized mode (Linux 7.0).
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Bytes the kernel fills, from `AT_RSEQ_FEATURE_SIZE`; 20 on kernels that do not say.
    #[must_use]
    pub fn feature_size(&self) -> u32 {
        self.feature_size
    }

    /// Alignment the kernel asks for, from `AT_RSEQ_ALIGN`; 32 on kernels that do not say.
    #[must_use]
    pub fn align(&self) -> u32 {
        self.align
    }

    /// libc's `__rseq_flags`; 0 for our own area.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether [`abi::Area::node_id`] is filled.
    #[must_use]
    pub fn has_node_id(&self) -> bool {
        self.feature_size >= abi::NODE_ID_END
    }

    /// Whether the field of index `I` is filled.
    #[must_use]
    pub fn has<I: Index>(&self) -> bool {
        self.feature_size >= I::END
    }

    /// Whether [`abi::Area::mm_cid`] is filled.
    #[must_use]
    pub fn has_mm_cid(&self) -> bool {
        self.feature_size >= abi::MM_CID_END
    }

    /// The calling thread's CPU, or `None` if the thread is not registered. Out of date as soon as it is read.
    #[inline]
    #[must_use]
    pub fn cpu_id(&self) -> Option<u32> {
        // SAFETY: `offset` locates the calling thread's area, registered or not.
        let cpu = unsafe { load_u32(self.offset + abi::CPU_ID) };
        (cpu as i32 >= 0).then_some(cpu)
    }

    /// The NUMA node of the calling thread's CPU (Linux 6.3). `None` if the thread is not registered or the
    /// kernel does not fill the field. Out of date as soon as it is read.
    #[inline]
    #[must_use]
    pub fn node_id(&self) -> Option<u32> {
        self.cpu_id().filter(|_| self.has_node_id())?;
        // SAFETY: as above, and the field is within the registered length.
        Some(unsafe { load_u32(self.offset + abi::NODE_ID) })
    }

    /// The calling thread's concurrency id (Linux 6.3). `None` as for [`Registration::node_id`].
    #[inline]
    #[must_use]
    pub fn mm_cid(&self) -> Option<u32> {
        self.cpu_id().filter(|_| self.has_mm_cid())?;
        // SAFETY: as above, and the field is within the registered length.
        Some(unsafe { load_u32(self.offset + abi::MM_CID) })
    }

    /// Makes the kernel forget the last sequence of the calling thread, and the thread's own area.
    ///
    /// Code that holds sequences may be unloaded (`dlclose`) only after every thread that ran one has called
    /// this: the kernel may read the descriptor of the last sequence long after it ended. libc's area stays
    /// registered.
    ///
    /// # Errors
    ///
    /// The errno with which the kernel refused to unregister an own area.
    pub fn forget_thread(&self) -> Result<(), i32> {
        // SAFETY: a word of this thread's area that users write; no sequence of this thread is running.
        unsafe { arch::store_word(self.offset + abi::RSEQ_CS, 0) };
        if self.registrant == Registrant::Libc {
            return Ok(());
        }
        own::unregister(self.length)
    }

    /// The handle that sequences indexed by `I` take.
    ///
    /// # Panics
    ///
    /// The kernel does not fill the field of `I`, see [`Registration::has`]: sequences would take what is there for an
    /// index.
    #[must_use]
    pub fn handle<I: Index>(&self) -> Handle {
        assert!(self.has::<I>(), "{} is not filled by this kernel", core::any::type_name::<I>());
        Handle(self.offset + I::TAG)
    }

    /// Registers the calling thread if that is ours to do and has not been done.
    ///
    /// Costs one system call the first time in a thread, a load afterwards.
    ///
    /// # Errors
    ///
    /// The thread has no area: libc failed to register it, the kernel refused to, or the thread is ending
    /// ([`Unavailable::ThreadEnding`]).
    pub fn ensure_thread(&self) -> Result<(), Unavailable> {
        // SAFETY: `offset` locates the calling thread's area, registered or not.
        let cpu = unsafe { load_u32(self.offset + abi::CPU_ID) };
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
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel (or an emulator in its place) has no rseq system call.
    NotImplemented,
    /// The kernel refused the registration with this errno, for instance by a seccomp filter.
    Refused(i32),
    /// libc registers areas but this thread's was refused.
    ThreadNotRegistered,
    /// A thread of this C library may unmap its memory before it ends, and no key of thread-specific data is left whose
    /// destructor would take the thread's own area from the kernel before.
    NoKey,
    /// The calling thread is ending, and its own area was taken from the kernel: it has none any more.
    ThreadEnding,
    /// Sequences are not atomic on this kernel: arm64 from 6.19 to 7.0.13 forgets to abort them when a
    /// thread is preempted and goes on on the same CPU.
    BrokenKernel(Release),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::NotImplemented => f.write_str("the kernel has no rseq system call (ENOSYS)"),
            Unavailable::Refused(libc::EPERM) => f.write_str("rseq registration was refused (EPERM)"),
            Unavailable::Refused(errno) => write!(f, "rseq registration was refused (errno {errno})"),
            Unavailable::BrokenKernel(release) => {
                write!(f, "arm64 Linux {release} does not abort preempted sequences (fixed in 7.0.14)")
            }
            Unavailable::ThreadNotRegistered => f.write_str("libc could not register this thread"),
            Unavailable::NoKey => f.write_str("no key of thread-specific data is left, to unregister threads that end"),
            Unavailable::ThreadEnding => f.write_str("this thread is ending and was unregistered"),
        }
    }
}

impl core::error::Error for Unavailable {}

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

    /// The calling thread's index now: a plain load, out of date as soon as it is read. [`abi::UNREGISTERED`], or -2
    /// where libc was refused, in a thread that is not registered; see [`crate::MmCid`] for the exception.
    ///
    /// # Safety
    ///
    /// * The handle comes from [`Registration::handle`] with the same `I`.
    #[inline(always)]
    #[must_use]
    pub unsafe fn index<I: Index>(self) -> u32 {
        // SAFETY: the handle locates this thread's area, by our own contract.
        unsafe { load_u32(self.0 - I::TAG + I::FIELD) }
    }
}

/// Looks for an area, registering the calling thread if it has to. Idempotent.
///
/// An own area is registered with as many bytes as the kernel has features for, at least 32, unless
/// [`probe_with`] chose otherwise before.
///
/// # Errors
///
/// The typed reason why sequences cannot run in this process.
pub fn probe() -> Result<Registration, Unavailable> {
    match OWN_LENGTH.load(Relaxed) {
        0 => probe_with(feature_length()),
        chosen => probe_with(chosen),
    }
}

/// The length that an own area should be registered with to get every feature of this kernel, as far as the area has
/// it.
#[must_use]
pub fn feature_length() -> u32 {
    auxiliary(AT_RSEQ_FEATURE_SIZE, abi::ORIGINAL_FEATURE_SIZE).clamp(abi::ORIGINAL_LENGTH, abi::OWN_LENGTH)
}

/// As [`probe`], with a chosen length for an own area, up to [`abi::OWN_LENGTH`]. It has no effect on libc's.
///
/// Length 32 asks for the kernel's legacy mode, which writes the numbers at every preemption; a longer one
/// for its optimized mode (Linux 7.0). A process uses one length: the kernel refuses another for a thread
/// that is registered.
///
/// # Errors
///
/// As for [`probe`]; a length the kernel does not take is [`Unavailable::Refused`] with EINVAL.
pub fn probe_with(own_length: u32) -> Result<Registration, Unavailable> {
    if let Some(release) = Release::running()
        && release.breaks_sequences(arch::IS_ARM64)
    {
        return Err(Unavailable::BrokenKernel(release));
    }
    let feature_size = auxiliary(AT_RSEQ_FEATURE_SIZE, abi::ORIGINAL_FEATURE_SIZE);
    let align = auxiliary(AT_RSEQ_ALIGN, 32);
    if let Some(found) = libc_area(feature_size, align) {
        return Ok(found);
    }
    // The kernel's alignment is for lengths beyond the original one, which needs its own.
    if own_length > abi::OWN_LENGTH || (own_length > abi::ORIGINAL_LENGTH && align > abi::OWN_LENGTH) {
        return Err(Unavailable::Refused(libc::EINVAL)); // our area is not what was asked for
    }
    register_own(own_length)?;
    // Relaxed: a number, and every thread that has registered knows it.
    OWN_LENGTH.store(own_length, Relaxed);
    Ok(Registration {
        registrant: Registrant::Own,
        offset: own_area_offset(),
        length: own_length,
        feature_size: feature_size.min(own_length),
        align,
        flags: 0,
    })
}

/// The length that own areas of this process are registered with; 0 before the first is.
static OWN_LENGTH: AtomicU32 = AtomicU32::new(0);

/// Everything a person may want to know about sequences in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Availability {
    /// The running kernel, if it says.
    pub kernel: Option<Release>,
    /// The registration, or the reason why there is none.
    pub registration: Result<Registration, Unavailable>,
    /// Possible CPUs: the rows that per-CPU structures reserve.
    pub possible_cpus: usize,
}

impl Availability {
    /// Asks for all of it. Registers the calling thread, like [`probe`].
    #[must_use]
    pub fn get() -> Self {
        Availability { kernel: Release::running(), registration: probe(), possible_cpus: kernel::possible_cpus() }
    }

    /// The kernel's mode for this registration, where its version says.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        Some(self.kernel?.mode(self.registration.ok()?.length))
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kernel {
            Some(release) => write!(f, "Linux {release}: ")?,
            None => f.write_str("kernel unknown: ")?,
        }
        let found = match &self.registration {
            Ok(found) => found,
            Err(why) => return write!(f, "rseq unavailable: {why}"),
        };
        let registrant = match found.registrant {
            Registrant::Libc => "libc",
            Registrant::Own => "this program",
        };
        write!(
            f,
            "rseq registered by {registrant}, length {}, feature size {}, alignment {}; readable: cpu_id",
            found.length, found.feature_size, found.align
        )?;
        if found.has_node_id() {
            f.write_str(", node_id")?;
        }
        if found.has_mm_cid() {
            f.write_str(", mm_cid")?;
        }
        match self.mode() {
            Some(mode) => write!(f, "; kernel mode {mode}")?,
            None => f.write_str("; kernel mode unknown")?,
        }
        write!(f, "; {} possible CPUs", self.possible_cpus)
    }
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
    let (offset, size, flags) = arch::libc_symbols();
    if offset.is_null() || size.is_null() || flags.is_null() {
        return None;
    }
    // SAFETY: libc defines the three variables with these types and never changes them after start-up.
    let (offset, size, flags) = unsafe { (*offset, *size, *flags) };
    // SAFETY: libc's area of this thread is at this offset even if the kernel refused it.
    if size == 0 || (unsafe { load_u32(offset + abi::CPU_ID) } as i32) < 0 {
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
    // That there is no such call, or a filter on it, is remembered: nobody asks again for each thread.
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    let refused = REFUSED.load(Relaxed);
    if refused != 0 {
        return Err(unavailable(Refusal::Kernel(refused as i32)));
    }
    own::register(length).map_err(|refusal| {
        if let Refusal::Kernel(errno @ (libc::ENOSYS | libc::EPERM)) = refusal {
            REFUSED.store(errno as u32, Relaxed);
        }
        unavailable(refusal)
    })
}

fn unavailable(refusal: Refusal) -> Unavailable {
    match refusal {
        Refusal::Kernel(libc::ENOSYS) => Unavailable::NotImplemented,
        Refusal::Kernel(errno) => Unavailable::Refused(errno),
        Refusal::NoKey => Unavailable::NoKey,
        Refusal::Ending => Unavailable::ThreadEnding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{CpuId, MmCid};

    /// What Linux before 6.3 gives.
    const OLD: Registration = Registration {
        registrant: Registrant::Libc,
        offset: 64,
        length: abi::ORIGINAL_LENGTH,
        feature_size: abi::ORIGINAL_FEATURE_SIZE,
        align: 32,
        flags: 0,
    };

    #[test]
    fn there_is_a_handle_for_what_the_kernel_fills() {
        assert!(Handle::from_bits::<CpuId>(OLD.handle::<CpuId>().to_bits()).is_some());
        assert!(!OLD.has::<MmCid>());
    }

    /// In libc's area the field would be 0 in every thread, an index nobody protects.
    #[test]
    #[should_panic(expected = "MmCid")]
    fn there_is_no_handle_for_what_it_does_not() {
        let _ = OLD.handle::<MmCid>();
    }
}
