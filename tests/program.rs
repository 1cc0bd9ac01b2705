//! smoke
#[global_allocator]
static A: perseq::Perseq = perseq::Perseq::new();

#[test]
fn strings_and_threads() {
    let handles: Vec<_> = (0..8)
        .map(|t| {
            std::thread::spawn(move || {
                let mut v: Vec<Vec<u8>> = Vec::new();
                let mut x = 12345u64 + t;
                for i in 0..200_000usize {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let n = (x >> 33) as usize % if i % 100 == 0 { 200_000 } else { 2000 };
                    let b = vec![(n & 255) as u8; n];
                    if v.len() < 1000 {
                        v.push(b)
                    } else {
                        let k = (x >> 20) as usize % 1000;
                        let old = std::mem::replace(&mut v[k], b);
                        assert!(old.iter().all(|c| *c == (old.len() & 255) as u8));
                    }
                }
            })
        })
        .collect();
    for h in handles {
        h.join().unwrap();
    }
    println!("{:#?}", perseq::stats());
    perseq::release();
    println!("{:#?}", perseq::stats());
}
