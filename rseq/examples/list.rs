//! A pool of work buffers: a thread takes one that was last used on its CPU, and puts it back.
//!
//! `cargo run -p perseq-rseq --release --example list`

use rseq::{MmCid, Node, PerCpuList};

fn main() {
    let mut nodes: Vec<Node<[u8; 4096]>> = (0..16).map(|_| Node::new([0; 4096])).collect();
    let pool = PerCpuList::<[u8; 4096], MmCid>::new().expect("address space");
    for node in &mut nodes {
        pool.push(node);
    }
    // Each index has its own list, so a thread may find none where it is. What it finds is warm.
    let (mut warm, mut none) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = (0, 0);
                    for _ in 0..10_000 {
                        let Some(node) = pool.pop() else {
                            counts.1 += 1;
                            continue;
                        };
                        node.value[0] = node.value[0].wrapping_add(1);
                        counts.0 += 1;
                        pool.push(node);
                    }
                    counts
                })
            })
            .collect();
        for worker in workers {
            let counts = worker.join().expect("no panic");
            warm += counts.0;
            none += counts.1;
        }
    });
    let mut found = 0;
    pool.drain(|_| found += 1).expect("membarrier");
    assert_eq!(found, 16);
    println!("{warm} times a buffer was there, {none} times not; all {found} came back");
}
