//! Children: forked ones that use the heap they got and fork again, and spawned ones.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere};
use crate::torture::heap::Door;
use crate::torture::holder::Holder;
use nix::libc;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// Trees of forked children.
pub const FORKS: Force =
    Force { name: "forks", what: "trees of forked children", takes_memory: false, absent: anywhere, act: forks };

/// Children that share memory until they are another program.
pub const SPAWNS: Force = Force {
    name: "spawns",
    what: "programs started by posix_spawn",
    takes_memory: false,
    absent: anywhere,
    act: spawns,
};

/// Generations below the first child.
const DEPTH: usize = 2;

fn forks(acting: &mut Acting) {
    let mut holder = acting.shared.holder(1 << 20);
    let mut inherited = acting.shared.holder((1 << 20) + 1);
    while acting.goes_on() {
        for _ in 0..60 {
            inherited.allocate();
        }
        let children = 1 + acting.random.below(2);
        tree(acting.shared.heap.door, &mut holder, &mut inherited, children, DEPTH);
        inherited.free_all();
        acting.happened();
        acting.sleep_us(2000);
    }
}

/// Forks children that use what they inherit, allocate, fork again and free; waits for them.
fn tree(door: Door, holder: &mut Holder, inherited: &mut Holder, children: usize, depth: usize) {
    let mut pids = [0; 2];
    for pid in &mut pids[..children] {
        // SAFETY: the child does no more than an allocator must allow, and leaves by `_exit`.
        *pid = unsafe { libc::fork() };
        if *pid == 0 {
            child(door, holder, inherited, depth);
        }
        if *pid < 0 {
            fault(format_args!("fork: {}", std::io::Error::last_os_error()));
        }
    }
    for &pid in &pids[..children] {
        let mut status = 0;
        // SAFETY: a child of ours; `status` is ours to write.
        while unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                fault(format_args!("waiting for a forked child: {error}"));
            }
        }
        let status = ExitStatus::from_raw(status);
        if !status.success() {
            fault(format_args!("a forked child ended with {status}, {depth} generations above the last"));
        }
    }
}

fn child(door: Door, holder: &mut Holder, inherited: &mut Holder, depth: usize) -> ! {
    inherited.objects.iter().for_each(|object| object.check());
    for _ in 0..60 {
        holder.allocate();
        inherited.free();
    }
    holder.objects.iter().for_each(|object| object.check());
    if depth > 0 {
        inherited.allocate();
        tree(door, inherited, holder, 1 + depth % 2, depth - 1);
    }
    holder.free_all();
    inherited.free_all();
    if door == Door::Crate {
        perseq::drain();
        perseq::release();
    }
    // SAFETY: ends this process at once; nothing of the parent's runs twice.
    unsafe { libc::_exit(0) }
}

fn spawns(acting: &mut Acting) {
    while acting.goes_on() {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => acting.happened(),
            Ok(status) => fault(format_args!("a spawned child ended with {status}")),
            Err(error) => fault(format_args!("spawning a child: {error}")),
        }
        acting.sleep_us(1000);
    }
}
