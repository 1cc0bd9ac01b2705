//! The resident set of a process and its descendants, asked for while it runs: their mean over its time.

use nix::unistd::{SysconfVar, sysconf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Time between two looks: long beside what one costs.
const STEP: Duration = Duration::from_millis(20);

/// Looks at the descendants of `root` until `done`. The mean of their resident bytes, pages that several share counted
/// for each; none, if they ended before the first look.
pub fn mean_bytes(root: u32, done: &AtomicBool) -> Option<u64> {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()? as u64;
    let (mut sum, mut looks) = (0u64, 0u64);
    while !done.load(Relaxed) {
        let bytes = descendants(root).into_iter().filter_map(resident_pages).sum::<u64>() * page;
        if bytes > 0 {
            (sum, looks) = (sum + bytes, looks + 1);
        }
        std::thread::park_timeout(STEP);
    }
    sum.checked_div(looks)
}

/// Every process below `root`. One that ends meanwhile is no error.
fn descendants(root: u32) -> Vec<u32> {
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(process) = open.pop() {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children: Vec<u32> = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
            found.extend(&children);
            open.extend(children);
        }
    }
    found
}

fn resident_pages(process: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}
