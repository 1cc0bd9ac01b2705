//! Whose area it is, and that there is one only.

use super::*;

#[test]
pub fn area_of_libc() {
    const NAME: &str = "area::area_of_libc";
    play_if_asked(|role| {
        probe_role();
        if role != "probe" {
            let found = rseq::probe().expect("registered by libc");
            if cfg!(target_env = "musl") {
                assert_eq!(found.registrant(), Registrant::Own, "musl registers none");
                return kit::not_tested("libc-areas", "areas that libc registers", "musl registers none");
            }
            assert_eq!(found.registrant(), Registrant::Libc);
            assert_eq!(rseq::probe_with(64), Ok(found), "the length is for own areas only");
            use_structures::<CpuId>(true);
            use_structures::<MmCid>(found.has_mm_cid());
            std::thread::spawn(move || check_numbers(&found)).join().expect("no panic");
        }
    });
    if kernel_registers(NAME) {
        let text = expect(again(NAME, "use"));
        let registrant = if cfg!(target_env = "musl") { "this program" } else { "libc" };
        assert!(text.contains(&format!("registered by {registrant}")), "{text}");
    }
}

/// Linux 6.3, which says how much it fills of an area. Before, areas had 32 bytes and no other number.
fn takes_longer_areas() -> bool {
    // SAFETY: plain integers.
    unsafe { libc::getauxval(linux_raw_sys::auxvec::AT_RSEQ_FEATURE_SIZE.into()) > 0 }
}

#[test]
pub fn area_of_our_own_in_every_length() {
    const NAME: &str = "area::area_of_our_own_in_every_length";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let length = match role {
            "default" => rseq::feature_length(),
            role => role.parse().expect("a length"),
        };
        if length > ORIGINAL_LENGTH && !takes_longer_areas() {
            assert_eq!(rseq::probe_with(length), Err(Unavailable::Refused(libc::EINVAL)), "as before Linux 6.3");
            println!("refused: length {length}");
            return;
        }
        let found = if role == "default" { rseq::probe() } else { rseq::probe_with(length) }.expect("registers");
        assert_eq!((found.registrant(), found.length()), (Registrant::Own, length));
        assert!(found.feature_size() <= length);
        assert_eq!(rseq::probe(), Ok(found), "asking again changes nothing");
        let other = if length == 64 { ORIGINAL_LENGTH } else { 64 };
        assert_eq!(rseq::probe_with(other), Err(Unavailable::Refused(libc::EINVAL)), "one length per process");
        assert_eq!(rseq::probe(), Ok(found), "and a wrong question changes nothing");
        use_structures::<CpuId>(true);
        use_structures::<MmCid>(found.has_mm_cid());
        // A thread that has not registered has no numbers, and gets them when it asks.
        std::thread::spawn(move || {
            assert_eq!((found.cpu_id(), found.mm_cid(), found.node_id()), (None, None, None));
            found.ensure_thread().expect("registers");
            check_numbers(&found);
            found.forget_thread().expect("unregisters");
            assert_eq!(found.cpu_id(), None);
            // SAFETY: the handle is of that index.
            assert_eq!(unsafe { found.handle::<CpuId>().index::<CpuId>() }, u32::MAX, "no index");
            assert_eq!(kit::area(&found)[6], u32::MAX, "of either kind");
            found.ensure_thread().expect("registers again");
        })
        .join()
        .expect("no panic");
        probe_role();
        let enforced = Availability::get().mode() == Some(rseq::kernel::Mode::OptimizedEnforced);
        if length > ORIGINAL_LENGTH && !enforced {
            println!(
                "not run: what this kernel does not do, checking that nobody writes its fields (version 2, Linux 7.0.10)"
            );
        }
    });
    if kernel_registers(NAME) {
        // 33 is the shortest that newer kernels treat as version 2; older ones take it if they have no more features.
        let known = rseq::feature_length();
        for role in ["default", "32", "33", "64"] {
            if role.parse().is_ok_and(|length: u32| length > rseq::abi::OWN_LENGTH) {
                println!(
                    "not run: length {role}, longer than areas of the crate's own are with the feature short-area"
                );
                continue;
            }
            if role.parse().is_ok_and(|length: u32| length > 32 && length < known) {
                println!("not run: length {role}, as this kernel wants {known}");
                continue;
            }
            let mut command = again(NAME, role);
            command.env(OWN.0, OWN.1);
            let text = expect(command);
            let refused = role.parse().is_ok_and(|length: u32| length > ORIGINAL_LENGTH && !takes_longer_areas());
            let expected = if refused { "refused: length" } else { "registered by this program" };
            assert!(text.contains(expected), "{text}");
            print!("{text}");
        }
    }
}

/// The raw system call with an area that is not the crate's.
pub fn register_foreign(area: &'static mut [u64; 8]) -> i32 {
    // SAFETY: 64 bytes that live for ever, aligned by the caller.
    let answer = unsafe { libc::syscall(libc::SYS_rseq, area.as_mut_ptr(), ORIGINAL_LENGTH, 0, SIGNATURE) };
    if answer == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().expect("an errno") }
}

#[repr(align(64))]
pub struct Foreign(pub [u64; 8]);

#[test]
pub fn registering_twice() {
    const NAME: &str = "area::registering_twice";
    play_if_asked(|role| match role {
        "probe" => probe_role(),
        "ours first" => {
            let found = rseq::probe().expect("registers");
            assert_eq!(found.ensure_thread(), Ok(()));
            assert_eq!(rseq::probe(), Ok(found));
            let foreign = Box::leak(Box::new(Foreign([0; 8])));
            assert_eq!(register_foreign(&mut foreign.0), libc::EINVAL, "the kernel takes one area");
            use_structures::<CpuId>(true);
        }
        _ => {
            let foreign = Box::leak(Box::new(Foreign([0; 8])));
            assert_eq!(register_foreign(&mut foreign.0), 0);
            assert_eq!(rseq::probe(), Err(Unavailable::Refused(libc::EINVAL)), "somebody else was first");
            // It was this thread's trouble only.
            std::thread::spawn(|| rseq::probe().expect("registers")).join().expect("no panic");
        }
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "ours first"));
        for role in ["ours first", "theirs first"] {
            let mut command = again(NAME, role);
            command.env(OWN.0, OWN.1);
            expect(command);
        }
    }
}
