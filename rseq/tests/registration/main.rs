//! Who registers, and what happens when nobody can: each case in a process of its own.
//!
//! A test starts this program again with its own name, and a role in the environment; the role's checks run there.

mod area;
#[path = "../kit/mod.rs"]
mod kit;
mod library;
mod life;
mod refused;
mod slices;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, exit};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rseq::abi::{ORIGINAL_LENGTH, SIGNATURE};
use rseq::{
    Availability, CpuId, Index, MmCid, Node, PerCpuBuffer, PerCpuCounter, PerCpuList, Registrant, Registration,
    Unavailable,
};

const ROLE: &str = "RSEQ_REGISTRATION_ROLE";
/// Turns libc's registration off, so that ours is needed.
const OWN: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

/// In a process started by [`start`]: plays its role and does not return.
fn play_if_asked(play: impl FnOnce(&str)) {
    if let Ok(role) = env::var(ROLE) {
        println!();
        play(&role);
        if let Ok(found) = rseq::probe() {
            kit::check_kernel_fields(&found);
        }
        println!("role done");
        exit(0);
    }
}

fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Starts a role, and expects it to end well.
fn expect(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("role done"),
        "{command:?}: {:?}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Whether this kernel registers at all; says so if not. Without that only the fallback can be tested.
fn kernel_registers(test: &str) -> bool {
    // A child decides, so that this process does not register.
    let text = expect(again(test, "probe"));
    let can = !text.contains("rseq unavailable");
    if !can {
        kit::not_tested("rseq", "what needs a registration", text);
    }
    can
}

/// The part every role needs: says what was found.
fn probe_role() {
    println!("{}", Availability::get());
}

/// The structures count right, from several threads, whatever they run on.
fn use_structures<I: Index>(per_cpu: bool) {
    let counter = PerCpuCounter::<I>::new().expect("address space");
    let events = PerCpuBuffer::<512, I>::new().expect("address space");
    let mut nodes: Vec<Node<u64>> = (0..100).map(Node::new).collect();
    let list = PerCpuList::<u64, I>::new().expect("address space");
    assert_eq!((counter.is_per_cpu(), events.is_per_cpu(), list.is_per_cpu()), (per_cpu, per_cpu, per_cpu));
    nodes.iter_mut().for_each(|node| list.push(node));
    let (mut appended, mut items, mut popped) = (0, Vec::new(), 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (counter, events, list) = (&counter, &events, &list);
                scope.spawn(move || {
                    (0..1000).for_each(|_| counter.add(2));
                    let appended = (0..300).filter(|item| events.append(thread * 1000 + item).is_ok()).count();
                    let taken: Vec<_> = (0..50).filter_map(|_| events.take()).collect();
                    let mut popped = 0;
                    for _ in 0..500 {
                        if let Some(node) = list.pop() {
                            popped += 1;
                            list.push(node);
                        }
                    }
                    let nodes: Vec<_> = list.pop_all().collect();
                    nodes.into_iter().for_each(|node| list.push(node));
                    (appended, taken, popped)
                })
            })
            .collect();
        for worker in workers {
            let counts = worker.join().expect("no panic");
            appended += counts.0;
            items.extend(counts.1);
            popped += counts.2;
        }
    });
    assert_eq!(counter.sum(), 8000);
    assert!(!items.is_empty(), "none was taken");
    events.drain(|item| items.push(item)).expect("membarrier");
    assert_eq!(items.len(), appended);
    items.sort_unstable();
    items.dedup();
    assert_eq!(items.len(), appended, "no item twice");
    assert!(appended >= 512, "{appended}: at least one buffer was filled");
    assert!(popped <= 2000);
    let mut values = Vec::new();
    list.drain(|node| values.push(node.value)).expect("membarrier");
    values.sort_unstable();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
}

/// The area's numbers are the kernel's, wherever the thread is.
fn check_numbers(found: &Registration) {
    let cpus = kit::allowed_cpus();
    for &cpu in &cpus {
        if !kit::pin(0, cpu) {
            continue; // offline by now
        }
        kit::check_kernel_fields(found);
        let (real_cpu, real_node) = kit::getcpu();
        assert_eq!((real_cpu as usize, found.cpu_id()), (cpu, Some(real_cpu)));
        assert_eq!(found.node_id(), found.has_node_id().then_some(real_node));
        assert_eq!(found.mm_cid().is_some(), found.has_mm_cid());
    }
    assert!(kit::allow(0, &cpus), "no CPU is left");
}
