//! Raw events by processor, each with the sentence it supports. On a processor that is not here only the generic events
//! are counted, and nothing is said about caches.
//!
//! Sources: the event lists that the vendors publish and the kernel carries in `tools/perf/pmu-events`. Generic names such
//! as `cache-misses` mean another level on each vendor, so they are not in any group.

/// A raw event.
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    /// As the vendor calls it.
    pub name: &'static str,
    /// Event and unit mask, as `perf_event_attr::config` takes them.
    pub config: u64,
    /// The group it is counted in.
    pub group: &'static str,
    /// What its count allows to be said.
    pub supports: &'static str,
}

/// Processors that count alike.
struct Family {
    vendor: &'static str,
    /// Family on x86, implementer on Arm.
    family: u32,
    /// Models on x86, parts on Arm.
    models: &'static [u32],
    name: &'static str,
    events: &'static [Raw],
}

/// Event and unit mask.
const fn raw(name: &'static str, event: u64, mask: u64, group: &'static str, supports: &'static str) -> Raw {
    Raw { name, config: mask << 8 | event, group, supports }
}

const L1: &str = "loads that missed the first cache";
const L2: &str = "loads that missed the second cache";
const RFO: &str = "lines asked for in order to write";
const WALK_LOADS: &str = "loads whose page was in no TLB";
const WALK_STORES: &str = "stores whose page was in no TLB";

const SKYLAKE: &[Raw] = &[
    raw("MEM_LOAD_RETIRED.L1_MISS", 0xd1, 0x08, "caches", L1),
    raw("MEM_LOAD_RETIRED.L2_MISS", 0xd1, 0x10, "caches", L2),
    raw(
        "MEM_LOAD_L3_HIT_RETIRED.XSNP_HITM",
        0xd2,
        0x04,
        "transfers",
        "loads of lines modified in another core of this socket",
    ),
    raw("MEM_LOAD_L3_MISS_RETIRED.REMOTE_HITM", 0xd3, 0x04, "transfers", "loads of lines modified in another socket"),
    raw("OFFCORE_REQUESTS.DEMAND_RFO", 0xb0, 0x04, "writes", RFO),
    raw("MEM_INST_RETIRED.STLB_MISS_LOADS", 0xd0, 0x11, "writes", WALK_LOADS),
    raw("MEM_INST_RETIRED.STLB_MISS_STORES", 0xd0, 0x12, "writes", WALK_STORES),
];

const ICE_LAKE: &[Raw] = &[
    raw("MEM_LOAD_RETIRED.L1_MISS", 0xd1, 0x08, "caches", L1),
    raw("MEM_LOAD_RETIRED.L2_MISS", 0xd1, 0x10, "caches", L2),
    raw(
        "MEM_LOAD_L3_HIT_RETIRED.XSNP_FWD",
        0xd2,
        0x04,
        "transfers",
        "loads of lines forwarded by another core of this socket",
    ),
    raw("L2_RQSTS.ALL_RFO", 0x24, 0xe2, "writes", RFO),
    raw(
        "L2_RQSTS.RFO_MISS",
        0x24,
        0x22,
        "writes",
        "lines asked for in order to write that were not in the second cache",
    ),
    raw("MEM_INST_RETIRED.STLB_MISS_LOADS", 0xd0, 0x11, "writes", WALK_LOADS),
];

const ZEN_2: &[Raw] = &[
    raw("ls_refills_from_sys.ls_mabresp_lcl_l2", 0x43, 0x01, "caches", "fills from the second cache"),
    raw(
        "ls_refills_from_sys.ls_mabresp_lcl_cache",
        0x43,
        0x02,
        "transfers",
        "fills from a shared cache of this node, another core's included",
    ),
    raw("ls_refills_from_sys.ls_mabresp_rmt_cache", 0x43, 0x10, "transfers", "fills from a cache of another node"),
    raw("ls_refills_from_sys.ls_mabresp_lcl_dram", 0x43, 0x08, "caches", "fills from this node's memory"),
    raw("ls_l1_d_tlb_miss.all_l2_miss", 0x45, 0xf0, "writes", WALK_LOADS),
    raw("l2_request_g1.change_to_x", 0x60, 0x08, "writes", "lines made writable"),
];

const ZEN_3: &[Raw] = &[
    raw("ls_dmnd_fills_from_sys.local_l2", 0x43, 0x01, "caches", "fills from the second cache"),
    raw(
        "ls_dmnd_fills_from_sys.local_ccx",
        0x43,
        0x02,
        "caches",
        "fills from the third cache or another core beside it",
    ),
    raw("ls_dmnd_fills_from_sys.near_cache", 0x43, 0x04, "transfers", "fills from another core complex of this node"),
    raw("ls_dmnd_fills_from_sys.far_cache", 0x43, 0x10, "transfers", "fills from a cache of another node"),
    raw("ls_l1_d_tlb_miss.all_l2_miss", 0x45, 0xf0, "writes", WALK_LOADS),
    raw("l2_request_g1.change_to_x", 0x60, 0x08, "writes", "lines made writable"),
];

const NEOVERSE: &[Raw] = &[
    raw("L1D_CACHE_REFILL", 0x03, 0, "caches", "lines fetched into the first cache"),
    raw("L2D_CACHE_REFILL", 0x17, 0, "caches", "lines fetched into the second cache"),
    raw("LL_CACHE_MISS_RD", 0x37, 0, "transfers", "reads that missed the last cache"),
    raw("REMOTE_ACCESS", 0x31, 0, "transfers", "accesses to another chip"),
    raw("L1D_TLB_REFILL", 0x05, 0, "writes", "pages fetched into the first TLB"),
    raw("DTLB_WALK", 0x34, 0, "writes", "walks of the page table for data"),
];

const FAMILIES: [Family; 6] = [
    // Skylake and Cascade Lake servers, and the clients of their time.
    Family {
        vendor: "GenuineIntel",
        family: 6,
        models: &[0x55, 0x4e, 0x5e, 0x8e, 0x9e, 0xa5, 0xa6],
        name: "Intel Skylake to Cascade Lake",
        events: SKYLAKE,
    },
    // Ice Lake, Sapphire Rapids, Emerald Rapids.
    Family {
        vendor: "GenuineIntel",
        family: 6,
        models: &[0x6a, 0x6c, 0x7d, 0x7e, 0x8f, 0xcf],
        name: "Intel Ice Lake to Emerald Rapids",
        events: ICE_LAKE,
    },
    Family { vendor: "AuthenticAMD", family: 0x17, models: &[], name: "AMD Zen 2", events: ZEN_2 },
    Family { vendor: "AuthenticAMD", family: 0x19, models: &[], name: "AMD Zen 3 and 4", events: ZEN_3 },
    Family { vendor: "AuthenticAMD", family: 0x1a, models: &[], name: "AMD Zen 5", events: ZEN_3 },
    // N1, N2, V1, V2.
    Family {
        vendor: "Arm",
        family: 0x41,
        models: &[0xd0c, 0xd49, 0xd40, 0xd4f],
        name: "Arm Neoverse",
        events: NEOVERSE,
    },
];

/// Name and raw events of the processor that `/proc/cpuinfo` describes. None: it is not in the table.
pub fn events(cpuinfo: &str) -> Option<(&'static str, &'static [Raw])> {
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let number = |name: &str| {
        let text = field(name)?;
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    };
    let (vendor, family, model) = match field("vendor_id") {
        Some(vendor) => (vendor, number("cpu family")?, number("model")?),
        None => ("Arm", number("CPU implementer")?, number("CPU part")?),
    };
    // The first Zen has other events than the second, under the same family.
    if vendor == "AuthenticAMD" && family == 0x17 && model < 0x30 {
        return None;
    }
    FAMILIES
        .iter()
        .find(|known| {
            known.vendor == vendor
                && known.family == family
                && (known.models.is_empty() || known.models.contains(&model))
        })
        .map(|known| (known.name, known.events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_known_by_what_the_kernel_says() {
        let name = |text: &str| events(text).map(|found| found.0);
        assert_eq!(
            name("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"),
            Some("Intel Skylake to Cascade Lake")
        );
        assert_eq!(name("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n"), Some("AMD Zen 3 and 4"));
        assert_eq!(name("vendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\n"), None);
        assert_eq!(name("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"), Some("Arm Neoverse"));
        assert_eq!(name("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 1\n"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn no_group_holds_more_than_four_events_beside_cycles_and_instructions() {
        for family in &FAMILIES {
            for group in super::super::HARDWARE_GROUPS {
                let events = family.events.iter().filter(|event| event.group == *group).count();
                assert!(events <= 4, "{}: {group} has {events}", family.name);
            }
            assert!(family.events.iter().all(|event| super::super::HARDWARE_GROUPS.contains(&event.group)));
        }
    }

    #[test]
    fn a_configuration_is_mask_and_event() {
        assert_eq!(SKYLAKE[2].config, 0x04d2);
    }
}
