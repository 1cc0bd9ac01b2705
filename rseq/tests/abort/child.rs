//! A child process that is stepped through by ptrace.

use super::*;

/// What ptrace is asked for, of which C libraries have their own types.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = libc::c_int;

/// A child that this thread traces.
pub struct Child {
    pub pid: libc::pid_t,
}

impl Memory for Child {
    fn word(&self, place: *const u64) -> usize {
        usize::from_ne_bytes(self.bytes(place as usize))
    }
}

/// Why a traced child stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Breakpoint,
    Step,
    Other(i32),
}

impl Child {
    /// Forks; the child runs `life` between two breakpoints and stays at the second.
    pub fn start(life: impl FnOnce(), first: impl FnOnce()) -> Child {
        // SAFETY: the child uses memory it has and system calls, no locks and no heap.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: system calls on this process, and breakpoints that the tracer waits for.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
                first();
                std::arch::asm!("int3");
                life();
                std::arch::asm!("int3");
                libc::_exit(0);
            }
        }
        assert!(pid > 0, "fork");
        let child = Child { pid };
        assert_eq!(child.wait(), Stop::Other(libc::SIGSTOP));
        assert_eq!(child.go_on(), Stop::Breakpoint);
        child
    }

    pub fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: our own child, and `status` is ours.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(pid, self.pid, "waitpid");
        assert!(libc::WIFSTOPPED(status), "the child ended early: status {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {
                // SAFETY: all-zero bytes are a valid `siginfo_t`.
                let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
                self.request(libc::PTRACE_GETSIGINFO, 0, (&raw mut information) as usize);
                const SI_KERNEL: i32 = 0x80;
                if information.si_code == SI_KERNEL { Stop::Breakpoint } else { Stop::Step }
            }
            signal => Stop::Other(signal),
        }
    }

    pub fn request(&self, request: Request, address: usize, data: usize) {
        // SAFETY: requests on our own stopped child; `data` is what the request wants.
        let answer = unsafe { libc::ptrace(request, self.pid, address, data) };
        assert_eq!(answer, 0, "ptrace request {request}: {}", std::io::Error::last_os_error());
    }

    pub fn resume(&self, request: Request, signal: i32) {
        self.request(request, 0, signal as usize);
    }

    /// One instruction, after the handler of `signal` has been set up if there is one.
    pub fn step(&self, signal: i32) -> Stop {
        self.resume(libc::PTRACE_SINGLESTEP, signal);
        self.wait()
    }

    pub fn go_on(&self) -> Stop {
        self.resume(libc::PTRACE_CONT, 0);
        self.wait()
    }

    /// Lets the child run up to the instruction at `address`, which is then the next, as after a step.
    pub fn run_to(&self, address: u64) -> Stop {
        const BREAKPOINT: u64 = 0xcc;
        let code = u64::from_ne_bytes(self.bytes(address as usize));
        self.set_word(address as usize, code & !0xff | BREAKPOINT);
        assert_eq!(self.go_on(), Stop::Breakpoint);
        self.set_word(address as usize, code);
        let mut registers = self.registers();
        assert_eq!(registers.rip, address + 1);
        registers.rip = address;
        self.request(libc::PTRACE_SETREGS, 0, (&raw mut registers) as usize);
        Stop::Step
    }

    pub fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all-zero bytes are valid registers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers) as usize);
        registers
    }

    pub fn instruction(&self) -> u64 {
        self.registers().rip
    }

    pub fn bytes<const N: usize>(&self, place: usize) -> [u8; N] {
        let mut bytes = [0_u8; N];
        let to = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: N };
        let from = libc::iovec { iov_base: place as *mut libc::c_void, iov_len: N };
        // SAFETY: `bytes` is ours; the kernel checks the child's addresses.
        let copied = unsafe { libc::process_vm_readv(self.pid, &to, 1, &from, 1, 0) };
        assert_eq!(copied, N as isize, "the child's memory at {place:#x}");
        bytes
    }

    pub fn set_word(&self, place: usize, value: u64) {
        self.request(libc::PTRACE_POKEDATA, place, value as usize);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, by its id.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
        }
    }
}

/// The kernel's fields of an area, which nobody else writes: all but `rseq_cs`.
pub fn kernel_fields(area: &[u8; 32]) -> [[u8; 8]; 3] {
    [0, 16, 24].map(|at| area[at..at + 8].try_into().expect("eight bytes"))
}
