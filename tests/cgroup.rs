//! Under a memory control group: without a limit of perseq's the kernel kills the process, with one in percent
//! allocation fails before that. In a real group, which takes root to make.

mod kit;

use std::alloc::{alloc, dealloc};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use kit::Child;
use kit::object::layout;
use perseq::{Limits, Mode};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const MIB: usize = 1 << 20;
/// What the group may have.
const GROUP: usize = 96 * MIB;
/// What perseq's limit leaves for everything that is not its heap.
const PERCENT: usize = 60;

/// A group of the test's own, gone when this is.
struct Group(PathBuf);

impl Group {
    /// `Ok(None)`: this host has no memory controller. The error says why there is no group although it has.
    fn new() -> Result<Option<Group>, String> {
        let root = Path::new("/sys/fs/cgroup");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let has_memory = |file| read(root.join(file)).split_whitespace().any(|name| name == "memory");
        let name = format!("perseq-test-{}", std::process::id());
        let (path, limits) = if root.join("memory/memory.limit_in_bytes").exists() {
            // The second counts swap as well; not every kernel has it.
            (root.join("memory").join(name), ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"])
        } else if has_memory("cgroup.subtree_control") {
            (root.join(name), ["memory.max", "memory.swap.max"])
        } else {
            let listed = read("/proc/cgroups".into()).lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.first() == Some(&"memory") && fields.last() == Some(&"1")
            });
            let found = listed || has_memory("cgroup.controllers");
            return if found { Err("the memory controller is not enabled for new groups".into()) } else { Ok(None) };
        };
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Group(path);
        let set = |file: &str, bytes: usize| std::fs::write(group.0.join(file), bytes.to_string());
        set(limits[0], GROUP).map_err(|error| format!("{}: {error}", limits[0]))?;
        drop(set(limits[1], if limits[1] == "memory.swap.max" { 0 } else { GROUP }));
        Ok(Some(group))
    }

    /// A child that runs in the group.
    fn child(&self, role: &str) -> Child {
        let file = CString::new(self.0.join("cgroup.procs").as_os_str().as_bytes()).expect("no zero in it");
        let join = move || {
            // SAFETY: system calls with a string of ours; a descriptor that is none is refused.
            let written = unsafe {
                libc::write(libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC), c"0".as_ptr().cast(), 1)
            };
            if written == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: two system calls.
        unsafe { Child::of("null_before_the_kernel_kills", role).prepared("in a control group", join) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was killed may be in it for a moment longer.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} stays", self.0.display());
    }
}

/// Takes and touches blocks of `size` until there are no more, but no more than twice what the group may have. How many
/// bytes there were.
fn fill(size: usize) -> usize {
    let mut blocks = Vec::with_capacity(2 * GROUP / size);
    while blocks.len() < blocks.capacity() {
        // SAFETY: the size is not 0.
        let block = unsafe { alloc(layout(size, 8)) };
        if block.is_null() {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
            break;
        }
        // SAFETY: ours, of this size.
        unsafe { block.write_bytes(0x5a, size) };
        blocks.push(block);
    }
    let bytes = blocks.len() * size;
    for block in blocks {
        // SAFETY: allocated above, freed once.
        unsafe { dealloc(block, layout(size, 8)) };
    }
    bytes
}

#[test]
fn null_before_the_kernel_kills() {
    match kit::role().as_deref() {
        None => {}
        Some("without a limit") => return assert_eq!(fill(MIB), 2 * GROUP, "the kernel refused"),
        Some(_) => {
            if !kit::as_requested() {
                return;
            }
            let hard = GROUP / 100 * PERCENT;
            assert_eq!(perseq::limits(), Limits { soft: None, hard: Some(hard) });
            for size in [MIB, 3000, 40_000, 7 * MIB] {
                let bytes = fill(size);
                assert!(bytes <= hard && bytes >= hard / 2, "{bytes} bytes of {hard} in blocks of {size}");
            }
            return;
        }
    }
    let group = match Group::new() {
        Ok(Some(group)) => group,
        Ok(None) => return kit::not_tested("memory-controller", "limits of control groups", "this host has none"),
        Err(why) => return kit::not_tested("memory-controller", "limits of control groups", why),
    };
    // The control: what perseq cannot help without being told.
    let killed = group.child("without a limit").mode(Mode::PerCpu).run();
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{killed}");
    for mode in Mode::ALL {
        group.child("in percent").mode(mode).env("PERSEQ_HARD_LIMIT", &format!("{PERCENT}%")).run().passed();
    }
}
