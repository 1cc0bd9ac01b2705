//! What the plugin knows: the model, and whether it is being fed.

use crate::marks;
use perseq_cache_model::{Access, Geometry, Model, Places, Ranges, Reuse, Topology};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Classes of accesses: by the kernel, and by programs.
pub const CLASSES: [&str; 2] = ["kernel", "user"];

/// The class of programs.
pub const USER: usize = 1;

/// In place of a class: the store of the self-test.
pub const TEST: usize = usize::MAX;

/// The half of the address space that is the kernel's.
const KERNEL: u64 = 1 << 63;

/// The class of an instruction's accesses, by its address.
pub fn class(instruction: u64) -> usize {
    usize::from(instruction & KERNEL == 0)
}

/// One access, as QEMU describes it.
pub struct Seen {
    /// The CPU that QEMU names.
    pub cpu: usize,
    /// Whether it is a store.
    pub write: bool,
    /// Virtual address.
    pub address: u64,
    /// Physical address.
    pub physical: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the plugin knows.
pub struct Observer {
    id: u64,
    /// Where to write it.
    pub out: PathBuf,
    /// The geometry's name.
    pub geometry: String,
    /// CPUs of the guest.
    pub cpus: usize,
    /// The caches.
    pub model: Model,
    looking: bool,
    counting: bool,
    /// What programs did, by line.
    pub places: Places,
    /// Where the metadata of the allocator lies.
    pub ranges: Ranges,
    /// What was found of objects that were handed out while counting. None: nobody asked.
    pub reuse: Option<Reuse>,
    /// Lines of a CPU's first level and of its second.
    pub lines: [u64; 2],
    /// Times that counting began.
    pub started: u64,
    /// Times that it ended.
    pub stopped: u64,
    /// Times that a measured part began, and ended, between these.
    pub parts: [u64; 2],
    /// System calls while counting.
    pub system_calls: u64,
    /// Stores of the self-test, by the CPU they were meant for.
    pub tested: Vec<u64>,
    /// Those that QEMU named another CPU for, and accesses of CPUs that the guest does not have.
    pub wrong: u64,
}

static OBSERVER: Mutex<Option<Observer>> = Mutex::new(None);

/// The observer that all calls lead to from now on.
pub fn start(observer: Observer) {
    *OBSERVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
}

/// Does something with it. The lock orders the accesses of CPUs that run at the same time.
pub fn with<R>(act: impl FnOnce(&mut Observer) -> R) -> R {
    let mut observer = OBSERVER.lock().unwrap_or_else(PoisonError::into_inner);
    // QEMU calls nothing of this plugin before it is installed.
    act(observer.as_mut().expect("the plugin is installed"))
}

impl Observer {
    /// From the plugin's arguments. The error says what is expected.
    pub fn new(id: u64, arguments: &[String]) -> Result<Observer, String> {
        let value = |name: &str| {
            let found = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| format!("no argument `{name}=`"))
        };
        let number =
            |name: &str, text: &str| text.parse::<u64>().map_err(|_| format!("{name}={text}: expected a number"));
        let count = |name: &str| Ok::<_, String>(number(name, value(name)?)? as usize);
        let memory = value("memory")?.split('+').map(|start| number("memory", start)).collect::<Result<Vec<_>, _>>()?;
        let geometry = Geometry::named(value("geometry")?)?;
        let topology = Topology::new(count("cpus")?, count("groups")?, &memory)?;
        let objects = count("objects")? != 0;
        let model = Model::new(&geometry, topology.clone(), CLASSES.len());
        Ok(Observer {
            id,
            out: value("out")?.into(),
            cpus: topology.cpus(),
            model: if objects { model.with_objects() } else { model },
            reuse: objects.then(Reuse::default),
            lines: [geometry.l1d, geometry.l2].map(|level| level.entries() as u64),
            geometry: geometry.name,
            looking: false,
            counting: false,
            places: Places::default(),
            ranges: Ranges::default(),
            started: 0,
            stopped: 0,
            parts: [0; 2],
            system_calls: 0,
            tested: vec![0; count("cpus")?],
            wrong: 0,
        })
    }

    /// Whether accesses are looked at.
    pub fn is_looking(&self) -> bool {
        self.looking
    }

    /// The guest executed a mark. The plugin's id: what was translated must be translated again.
    pub fn mark(&mut self, mark: usize) -> Option<u64> {
        match mark {
            marks::LOOK if !self.looking => {
                self.looking = true;
                return Some(self.id);
            }
            marks::START => {
                self.counting = true;
                self.started += 1;
            }
            marks::STOP => {
                self.counting = false;
                self.stopped += 1;
            }
            // A part of what is counted, where the workload has one: the caches stay as warm as they are.
            marks::BEGIN if self.counting => {
                self.model.reset_counts();
                self.places.clear();
                self.reuse = self.reuse.take().map(|_| Reuse::default());
                self.system_calls = 0;
                self.parts[0] += 1;
            }
            marks::END if self.counting => {
                self.counting = false;
                self.parts[1] += 1;
            }
            _ => {}
        }
        None
    }

    /// The guest executed `syscall`.
    pub fn system_call(&mut self) {
        self.system_calls += u64::from(self.counting);
    }

    /// A thread on `cpu` is handed the object at a physical address, or gives it back.
    pub fn object(&mut self, cpu: usize, physical: u64, passing: marks::Passing) {
        let Some((objects, reuse)) = self.model.objects().zip(self.reuse.as_mut()).filter(|_| self.counting) else {
            return;
        };
        match passing {
            _ if cpu >= self.cpus => self.wrong += 1,
            marks::Passing::HandedOut => reuse.add(objects.hand_out(cpu, physical)),
            marks::Passing::GivenBack => objects.give_back(physical),
        }
    }

    /// The guest loaded or stored.
    pub fn access(&mut self, seen: &Seen, what: usize) {
        if what == TEST {
            // The store's line within its page is the number of the CPU it was executed on.
            let meant = (seen.address >> 6) as usize & 63;
            match self.tested.get_mut(meant) {
                Some(tested) => *tested += 1,
                None => self.wrong += 1,
            }
            self.wrong += u64::from(meant != seen.cpu);
        } else if seen.cpu >= self.cpus {
            self.wrong += 1;
        } else if self.counting {
            // The kernel maps its memory with huge pages.
            let page_bits = if seen.address & KERNEL == 0 { 12 } else { 21 };
            let access = Access {
                cpu: seen.cpu,
                class: what,
                write: seen.write,
                address: seen.physical,
                bytes: seen.bytes,
                page: seen.address >> page_bits,
            };
            if what == USER {
                let change = self.model.change(&access);
                self.places.add(seen.address, change);
            } else {
                self.model.access(&access);
            }
        }
    }
}
