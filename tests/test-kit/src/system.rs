//! What the kernel is asked for.

use crate::own::Own;

/// A set of CPUs.
pub struct Cpus(Own<libc::cpu_set_t>);

impl Cpus {
    /// Those that the calling thread may run on.
    pub fn allowed() -> Cpus {
        // SAFETY: a plain bit set, of which all zero is a value.
        let mut set = Own::new(unsafe { std::mem::zeroed::<libc::cpu_set_t>() });
        // SAFETY: the set is ours and has the size given. It stays empty where that fails: then nobody moves.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut *set) };
        Cpus(set)
    }

    /// The calling thread runs on any of them.
    pub fn run_on_all(&self) {
        // SAFETY: reads the set.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &*self.0) };
    }

    /// The calling thread runs on the `number`th of them, counted round.
    pub fn run_on_one(&self, number: usize) {
        // SAFETY: the index is below the set's size.
        let mut all = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &self.0) });
        let count = all.clone().count();
        if count == 0 {
            return;
        }
        let Some(cpu) = all.nth(number % count) else { return };
        // SAFETY: a plain bit set, and an index below its size.
        unsafe {
            let mut one = std::mem::zeroed::<libc::cpu_set_t>();
            libc::CPU_SET(cpu, &mut one);
            // A CPU may have gone offline meanwhile: then nothing changes, which is fine.
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
        }
    }
}

/// Bytes of address space that this process has. Allocates nothing.
pub fn address_space() -> Option<u64> {
    let mut text = [0_u8; 128];
    // SAFETY: a path of ours, a buffer of ours, a descriptor of ours.
    let length = unsafe {
        let file = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let length = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        usize::try_from(length).ok()?
    };
    let digits = text[..length].split(|byte| *byte == b' ').next()?;
    let pages: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // SAFETY: no preconditions.
    Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

/// A limit on the address space of this process, until it is dropped.
pub struct AddressSpace(libc::rlimit);

impl AddressSpace {
    /// So many bytes more than it has. `None`: it cannot be limited.
    pub fn limit(more: u64) -> Option<AddressSpace> {
        let most = address_space()? + more;
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: structures of ours.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_AS, &mut before) != 0 || before.rlim_max < most {
                return None;
            }
            let limit = libc::rlimit { rlim_cur: most, rlim_max: before.rlim_max };
            (libc::setrlimit(libc::RLIMIT_AS, &limit) == 0).then_some(AddressSpace(before))
        }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // SAFETY: a structure of ours.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &self.0) };
    }
}

/// Waits for a child to end. Its status, or an error of the system's.
pub fn wait_for(child: libc::pid_t, flags: i32) -> Result<Option<i32>, i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours to be written.
        match unsafe { libc::waitpid(child, &mut status, flags) } {
            0 => return Ok(None),
            -1 if crate::errno::get() == libc::EINTR => {}
            -1 => return Err(crate::errno::get()),
            _ => return Ok(Some(status)),
        }
    }
}
