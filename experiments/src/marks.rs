//! Instructions that the plugin of `perseq simulate` knows, and that do nothing else: on a processor each costs a `nop`.
//! `cache-plugin/src/marks.rs` has the same numbers.
//!
//! Guests are x86-64. On other processors nothing is marked, and no figure comes out of a simulation.

/// Look at accesses from now on.
pub fn look() {
    mark::<1>();
}

/// Feed the caches and count from now on.
pub fn start() {
    mark::<2>();
}

/// Count no more.
pub fn stop() {
    mark::<3>();
}

/// The measured part begins: what was counted before warmed the caches, and is forgotten.
#[inline]
pub fn begin() {
    mark::<5>();
}

/// The measured part is over: what follows is not counted.
#[inline]
pub fn end() {
    mark::<6>();
}

#[cfg(target_arch = "x86_64")]
const BASE: i32 = 0x5053_5100;

#[inline(always)]
fn mark<const NUMBER: i32>() {
    // SAFETY: `nop` with an operand reads nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(".byte 0x0f,0x1f,0x84,0x00", ".long {}", const BASE + NUMBER)
    };
}

/// Tiers of an allocator, in the order of the numbers by which they are told.
pub const TIERS: [&str; 6] = ["caches", "transfer_caches", "spans", "page_map", "page_heap", "shared"];

/// Tells that the bytes from `first` to `last` are of the tier with this number, by loads of both.
///
/// # Safety
///
/// * Both can be read, and who else writes them does not mind: the values are dropped.
///
/// # Panics
///
/// There is no such tier.
pub unsafe fn tell(tier: usize, first: u64, last: u64) {
    let (begin, end): (Load, Load) = match tier {
        0 => (load::<0x10>, load::<0x11>),
        1 => (load::<0x12>, load::<0x13>),
        2 => (load::<0x14>, load::<0x15>),
        3 => (load::<0x16>, load::<0x17>),
        4 => (load::<0x18>, load::<0x19>),
        5 => (load::<0x1a>, load::<0x1b>),
        _ => panic!("tier {tier} of {}", TIERS.len()),
    };
    // SAFETY: by our own contract.
    unsafe { begin(first) };
    // SAFETY: as above.
    unsafe { end(last) };
}

/// Marks that an object goes to the caller, by a store of 0 into its first byte.
///
/// # Safety
///
/// * The object is the caller's and has a byte, of which nothing is expected, or that it is 0.
#[inline(always)]
pub unsafe fn hand_out(object: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    {
        let base = object.wrapping_byte_sub((BASE + 0x20) as usize);
        // SAFETY: by our own contract the byte is ours to write.
        unsafe {
            std::arch::asm!(
                ".byte 0x88,0x88", ".long {}", const BASE + 0x20, in("rax") base, in("cl") 0_u8,
                options(nostack, preserves_flags)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// Marks that the caller gives an object back, by a load of its first byte.
///
/// # Safety
///
/// * The object is the caller's and has a byte.
#[inline(always)]
pub unsafe fn give_back(object: *mut u8) {
    // SAFETY: by our own contract.
    unsafe { load::<0x21>(object.expose_provenance() as u64) };
}

type Load = unsafe fn(u64);

/// # Safety
///
/// * As for [`tell`].
#[inline(always)]
unsafe fn load<const NUMBER: i32>(address: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        let base = address.wrapping_sub((BASE + NUMBER) as u64);
        // SAFETY: by our own contract `address` can be read; the byte goes to a register that is given up.
        unsafe {
            std::arch::asm!(
                ".byte 0x8a,0x88", ".long {}", const BASE + NUMBER, in("rax") base, out("cl") _,
                options(nostack, readonly, preserves_flags)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Stores `value` by the encoding that the plugin compares with the CPU it is told.
pub fn test(place: &mut u64, value: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        let place = std::ptr::from_mut(place).wrapping_byte_sub(BASE as usize + 4);
        // SAFETY: the address is `place`, which is ours to write.
        unsafe {
            std::arch::asm!(
                ".byte 0x48,0x89,0x88", ".long {}", const BASE + 4, in("rax") place, in("rcx") value,
                options(nostack)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        *place = value;
    }
}
