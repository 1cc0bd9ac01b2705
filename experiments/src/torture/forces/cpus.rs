//! Where threads run: affinity, control groups of CPUs, CPUs that go away.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, allowed_cpus, anywhere, run_on};
use crate::torture::order::Order;
use std::fs;
use std::path::{Path, PathBuf};

/// Affinity flips.
pub const MOVES: Force =
    Force { name: "moves", what: "moves of threads to other CPUs", takes_memory: false, absent: anywhere, act: moves };

/// A control group's CPUs change.
pub const CPUSETS: Force = Force {
    name: "cpusets",
    what: "changes of the control group's CPUs",
    takes_memory: false,
    absent: cpusets_absent,
    act: cpusets,
};

/// A CPU goes offline and comes back.
pub const HOTPLUG: Force = Force {
    name: "hotplug",
    what: "CPUs taken away and brought back",
    takes_memory: false,
    absent: hotplug_absent,
    act: hotplug,
};

fn moves(acting: &mut Acting) {
    let cpus = &acting.shared.cpus;
    while acting.goes_on() {
        for _ in 0..4 {
            let Some(thread) = acting.any_thread() else { continue };
            let cpu = acting.random.of(cpus);
            let free = acting.random.once_in(3);
            if run_on(thread, if free { cpus } else { std::slice::from_ref(&cpu) }) {
                acting.happened();
            }
        }
        acting.sleep_us(50);
    }
}

/// A group below this process's own, which becomes its group.
struct Group {
    own: PathBuf,
    parent: PathBuf,
}

impl Group {
    fn new() -> Result<Group, String> {
        let parent = own_group()?;
        let own = parent.join(format!("perseq-torture-{}", std::process::id()));
        let say = |what: &str, error| format!("{what} {}: {error}", own.display());
        fs::create_dir(&own).map_err(|error| say("cannot create the control group", error))?;
        let group = Group { own: own.clone(), parent };
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // In version 2 an empty file means what the parent has, which stands in its file of effective ones.
            let of_parent = [file.to_owned(), format!("{file}.effective")];
            let value = of_parent.iter().filter_map(|file| fs::read_to_string(group.parent.join(file)).ok());
            let value = value.map(|text| text.trim().to_owned()).find(|text| !text.is_empty());
            let value = value.ok_or_else(|| format!("no {file} in the control group {}", group.parent.display()))?;
            fs::write(own.join(file), value).map_err(|error| say(&format!("cannot set {file} of"), error))?;
        }
        join(&own).map_err(|error| say("cannot join the control group", error))?;
        Ok(group)
    }

    fn set(&self, cpus: &[usize]) -> bool {
        let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
        fs::write(self.own.join("cpuset.cpus"), list.join(",")).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What cannot be undone is left to the runner, which removes the group after this process.
        drop(join(&self.parent));
        drop(fs::remove_dir(&self.own));
    }
}

fn join(group: &Path) -> std::io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

/// The group of this process in the hierarchy that knows of CPUs.
pub fn own_group() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (mounts, groups) = (read("/proc/self/mounts")?, read("/proc/self/cgroup")?);
    let mount = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, found, options) = (words.next()?, words.next()?, words.next()?);
            let has = option.is_none_or(|option| options.split(',').any(|word| word == option));
            (found == kind && has).then(|| place.to_owned())
        })
    };
    let path = |names_it: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            names_it(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let one = mount("cgroup", Some("cpuset")).zip(path(&|names| names.split(',').any(|name| name == "cpuset")));
    let two = mount("cgroup2", None).zip(path(&|names| names.is_empty()));
    let (mount, path) = one.or(two).ok_or("no control groups for CPUs are mounted")?;
    Ok(Path::new(&mount).join(path))
}

fn cpusets_absent(_: &Order) -> Option<String> {
    if allowed_cpus().len() < 2 {
        return Some("one CPU is all there is".into());
    }
    Group::new().err()
}

fn cpusets(acting: &mut Acting) {
    let group = match Group::new() {
        Ok(group) => group,
        Err(reason) => fault(format_args!("not a loss, but the end of this storm: {reason}")),
    };
    let cpus = acting.shared.cpus.clone();
    while acting.goes_on() {
        let cpu = acting.random.of(&cpus);
        if group.set(if acting.random.once_in(2) { &cpus } else { std::slice::from_ref(&cpu) }) {
            acting.happened();
        }
        acting.sleep_us(500);
    }
    group.set(&cpus);
}

/// The switch of the last CPU, which is the one to play with.
pub fn switch() -> Result<PathBuf, String> {
    let cpus = allowed_cpus();
    let last = cpus.last().filter(|_| cpus.len() > 1).ok_or("one CPU is all there is")?;
    let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{last}/online"));
    // Writing what is there shows whether it may be written.
    fs::write(&path, "1").map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn hotplug_absent(_: &Order) -> Option<String> {
    switch().err()
}

fn hotplug(acting: &mut Acting) {
    let Ok(switch) = switch() else { return };
    while acting.goes_on() {
        if fs::write(&switch, "0").is_ok() {
            acting.sleep_us(3000);
            // The kernel may be busy with the last change.
            while fs::write(&switch, "1").is_err() {
                acting.sleep_us(1000);
            }
            acting.happened();
        }
        let cpus = &acting.shared.cpus;
        for member in &acting.shared.members {
            // A thread that lost its CPU may run everywhere; so that it comes back to it:
            run_on(member.thread.load(std::sync::atomic::Ordering::SeqCst), cpus);
        }
        acting.sleep_us(20_000);
    }
}
