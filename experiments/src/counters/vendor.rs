//! Raw events by processor, each with the sentence it supports. On a processor that is not here only the generic events
//! are counted, and nothing is said about caches.
//!
//! Sources: the event lists that the vendors publish and the kernel carries in `tools/perf/pmu-events`. Generic names such
//! as `cache-misses` mean another level on each vendor, so they are not in any group.

use std::ops::RangeInclusive;

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
    /// Whether it can only come from beyond a last-level cache: with one such cache it is always 0.
    pub beyond: bool,
}

/// Processors that count alike.
struct Family {
    vendor: &'static str,
    /// Family on x86, implementer on Arm.
    family: u32,
    /// Models on x86, parts on Arm. Empty: all of the family.
    models: &'static [RangeInclusive<u32>],
    name: &'static str,
    /// Counts every load of a loop in which each misses the first cache.
    misses: Raw,
    events: &'static [Raw],
}

/// What is known of a processor.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The event by which a loop of known misses is counted.
    pub misses: Raw,
    /// Its raw events.
    pub events: &'static [Raw],
}

/// Event and unit mask.
const fn raw(name: &'static str, event: u64, mask: u64, group: &'static str, supports: &'static str) -> Raw {
    Raw { name, config: mask << 8 | event, group, supports, beyond: false }
}

/// Event and unit mask of what comes from beyond a last-level cache.
const fn beyond(name: &'static str, event: u64, mask: u64, group: &'static str, supports: &'static str) -> Raw {
    Raw { beyond: true, ..raw(name, event, mask, group, supports) }
}

const fn one(model: u32) -> RangeInclusive<u32> {
    model..=model
}

const L1: &str = "loads that missed the first cache";
const L2: &str = "loads that missed the second cache";
const RFO: &str = "lines asked for in order to write";
const WALK_LOADS: &str = "loads whose page was in no TLB";
const WALK_STORES: &str = "stores whose page was in no TLB";
const WALKS: &str = "loads and stores whose page was in no TLB";
const OTHER_SOCKET: &str = "loads of lines modified in another socket";

const INTEL_MISSES: Raw = raw("MEM_LOAD_RETIRED.L1_MISS", 0xd1, 0x08, "caches", L1);
const ATOM_MISSES: Raw = raw("MEM_LOAD_UOPS_RETIRED.L1_MISS", 0xd1, 0x40, "caches", L1);
const ZEN_2_MISSES: Raw = raw("ls_refills_from_sys.all", 0x43, 0x5b, "caches", "fills from anywhere");
const ZEN_MISSES: Raw = raw("ls_dmnd_fills_from_sys.all", 0x43, 0x5f, "caches", "fills from anywhere");
const ARM_MISSES: Raw = raw("L1D_CACHE_REFILL", 0x03, 0, "caches", "lines fetched into the first cache");

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
    beyond("MEM_LOAD_L3_MISS_RETIRED.REMOTE_HITM", 0xd3, 0x04, "transfers", OTHER_SOCKET),
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
    beyond("MEM_LOAD_L3_MISS_RETIRED.REMOTE_HITM", 0xd3, 0x04, "transfers", OTHER_SOCKET),
    raw("L2_RQSTS.ALL_RFO", 0x24, 0xe2, "writes", RFO),
    raw(
        "L2_RQSTS.RFO_MISS",
        0x24,
        0x22,
        "writes",
        "lines asked for in order to write that were not in the second cache",
    ),
    raw("MEM_INST_RETIRED.STLB_MISS_LOADS", 0xd0, 0x11, "writes", WALK_LOADS),
    raw("MEM_INST_RETIRED.STLB_MISS_STORES", 0xd0, 0x12, "writes", WALK_STORES),
];

/// Transfers within a socket need a mask in a register of its own, which the kernel's raw events have no room for here.
const SIERRA_FOREST: &[Raw] = &[
    raw("MEM_LOAD_UOPS_RETIRED.L1_MISS", 0xd1, 0x40, "caches", L1),
    raw("MEM_LOAD_UOPS_RETIRED.L2_MISS", 0xd1, 0x80, "caches", L2),
    beyond("MEM_LOAD_UOPS_L3_MISS_RETIRED.REMOTE_FWD_HITM", 0xd3, 0x08, "transfers", OTHER_SOCKET),
    raw("MEM_UOPS_RETIRED.STLB_MISS_LOADS", 0xd0, 0x11, "writes", WALK_LOADS),
    raw("MEM_UOPS_RETIRED.STLB_MISS_STORES", 0xd0, 0x12, "writes", WALK_STORES),
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
    beyond("ls_refills_from_sys.ls_mabresp_rmt_cache", 0x43, 0x10, "transfers", "fills from a cache of another node"),
    raw("ls_refills_from_sys.ls_mabresp_lcl_dram", 0x43, 0x08, "caches", "fills from this node's memory"),
    raw("ls_l1_d_tlb_miss.all_l2_miss", 0x45, 0xf0, "writes", WALKS),
    raw("l2_request_g1.change_to_x", 0x60, 0x08, "writes", "lines made writable"),
];

const LOCAL_L2: Raw = raw("ls_dmnd_fills_from_sys.local_l2", 0x43, 0x01, "caches", "fills from the second cache");
const LOCAL_CCX: Raw = raw(
    "ls_dmnd_fills_from_sys.local_ccx",
    0x43,
    0x02,
    "caches",
    "fills from the third cache or another core beside it",
);
const NEAR_CACHE: Raw = beyond(
    "ls_dmnd_fills_from_sys.near_cache",
    0x43,
    0x04,
    "transfers",
    "fills from another core complex of this node",
);
const FAR_CACHE: Raw =
    beyond("ls_dmnd_fills_from_sys.far_cache", 0x43, 0x10, "transfers", "fills from a cache of another node");
/// Both of the two before: counted beside them, it has to be their sum.
const REMOTE_CACHE: Raw = beyond(
    "ls_dmnd_fills_from_sys.remote_cache",
    0x43,
    0x14,
    "transfers",
    "fills from another core complex of any node",
);

const ZEN_3: &[Raw] = &[
    LOCAL_L2,
    LOCAL_CCX,
    NEAR_CACHE,
    FAR_CACHE,
    raw("ls_l1_d_tlb_miss.all_l2_miss", 0x45, 0xf0, "writes", WALKS),
    raw("l2_request_g1.change_to_x", 0x60, 0x08, "writes", "lines made writable"),
];

const ZEN_5: &[Raw] = &[
    LOCAL_L2,
    LOCAL_CCX,
    NEAR_CACHE,
    FAR_CACHE,
    REMOTE_CACHE,
    raw("ls_l1_d_tlb_miss.all_l2_miss", 0x45, 0xf0, "writes", WALKS),
    raw("l2_request_g1.rd_blk_x", 0x60, 0x40, "writes", RFO),
];

const ZEN_6: &[Raw] = &[
    LOCAL_L2,
    LOCAL_CCX,
    NEAR_CACHE,
    FAR_CACHE,
    REMOTE_CACHE,
    raw("ls_l1_d_tlb_miss.l2_miss_all", 0x45, 0xf0, "writes", WALKS),
    raw("l2_request_g1.rd_blk_x", 0x60, 0x40, "writes", RFO),
];

/// The cores do not say whether another core had the line: of transfers only those from another chip are seen.
const NEOVERSE: &[Raw] = &[
    raw("L1D_CACHE_REFILL", 0x03, 0, "caches", "lines fetched into the first cache"),
    raw("L2D_CACHE_REFILL", 0x17, 0, "caches", "lines fetched into the second cache"),
    raw("LL_CACHE_MISS_RD", 0x37, 0, "caches", "reads that missed the last cache"),
    beyond("REMOTE_ACCESS", 0x31, 0, "transfers", "accesses to another chip"),
    raw("L1D_TLB_REFILL", 0x05, 0, "writes", "pages fetched into the first TLB"),
    raw("DTLB_WALK", 0x34, 0, "writes", "walks of the page table for data"),
];

const FAMILIES: [Family; 8] = [
    // Skylake and Cascade Lake servers, and the clients of their time.
    Family {
        vendor: "GenuineIntel",
        family: 6,
        models: &[one(0x55), one(0x4e), one(0x5e), one(0x8e), one(0x9e), one(0xa5), one(0xa6)],
        name: "Intel Skylake to Cascade Lake",
        misses: INTEL_MISSES,
        events: SKYLAKE,
    },
    // Ice Lake, Sapphire Rapids, Emerald Rapids, Granite Rapids.
    Family {
        vendor: "GenuineIntel",
        family: 6,
        models: &[one(0x6a), one(0x6c), one(0x7d), one(0x7e), one(0x8f), one(0xcf), 0xad..=0xae],
        name: "Intel Ice Lake to Granite Rapids",
        misses: INTEL_MISSES,
        events: ICE_LAKE,
    },
    Family {
        vendor: "GenuineIntel",
        family: 6,
        models: &[one(0xaf)],
        name: "Intel Sierra Forest",
        misses: ATOM_MISSES,
        events: SIERRA_FOREST,
    },
    // The first Zen has other events than the second, under the same family.
    Family {
        vendor: "AuthenticAMD",
        family: 0x17,
        models: &[0x30..=0xff],
        name: "AMD Zen 2",
        misses: ZEN_2_MISSES,
        events: ZEN_2,
    },
    Family {
        vendor: "AuthenticAMD",
        family: 0x19,
        models: &[],
        name: "AMD Zen 3 and 4",
        misses: ZEN_MISSES,
        events: ZEN_3,
    },
    // By the kernel's own table of models.
    Family {
        vendor: "AuthenticAMD",
        family: 0x1a,
        models: &[0x50..=0x5f, 0x80..=0xaf, 0xc0..=0xcf],
        name: "AMD Zen 6",
        misses: ZEN_MISSES,
        events: ZEN_6,
    },
    Family { vendor: "AuthenticAMD", family: 0x1a, models: &[], name: "AMD Zen 5", misses: ZEN_MISSES, events: ZEN_5 },
    // N1, N2, V1, V2, N3, V3.
    Family {
        vendor: "Arm",
        family: 0x41,
        models: &[one(0xd0c), one(0xd49), one(0xd40), one(0xd4f), one(0xd8e), 0xd83..=0xd84],
        name: "Arm Neoverse",
        misses: ARM_MISSES,
        events: NEOVERSE,
    },
];

/// What is known of the processor that `/proc/cpuinfo` describes. None: it is not in the table.
pub fn known(cpuinfo: &str) -> Option<Known> {
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
    FAMILIES
        .iter()
        .find(|known| {
            known.vendor == vendor
                && known.family == family
                && (known.models.is_empty() || known.models.iter().any(|models| models.contains(&model)))
        })
        .map(|known| Known { name: known.name, misses: known.misses, events: known.events })
}

/// The events of every processor of the table.
#[cfg(test)]
pub fn tables() -> impl Iterator<Item = &'static [Raw]> {
    FAMILIES.iter().map(|family| family.events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_known_by_what_the_kernel_says() {
        let name = |text: &str| known(text).map(|found| found.name);
        assert_eq!(
            name("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"),
            Some("Intel Skylake to Cascade Lake")
        );
        assert_eq!(name("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n"), Some("AMD Zen 3 and 4"));
        assert_eq!(name("vendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\n"), None);
        for part in ["0xd0c", "0xd8e", "0xd84"] {
            assert_eq!(name(&format!("CPU implementer\t: 0x41\nCPU part\t: {part}\n")), Some("Arm Neoverse"));
        }
        let intel = |model: u32| name(&format!("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n"));
        assert_eq!([0xad, 0xae].map(intel), [Some("Intel Ice Lake to Granite Rapids"); 2]);
        assert_eq!(intel(0xaf), Some("Intel Sierra Forest"));
        let amd = |model: u32| name(&format!("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: {model}\n"));
        assert_eq!([0x02, 0x24, 0x44, 0x70].map(amd), [Some("AMD Zen 5"); 4]);
        assert_eq!([0x50, 0x90, 0xc0].map(amd), [Some("AMD Zen 6"); 3]);
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

    /// What a sentence may say: which accesses are in the count, and whether the line was another core's.
    #[test]
    fn sentences_go_no_further_than_their_events() {
        let all = FAMILIES.iter().flat_map(|family| family.events.iter().map(move |event| (family.vendor, event)));
        for (vendor, event) in all {
            let walks = event.name.contains("tlb_miss") && vendor == "AuthenticAMD";
            assert_eq!(walks, event.supports == WALKS, "{}: AMD counts stores as well", event.name);
            assert!(
                event.group != "transfers" || !event.name.contains("MISS_RD"),
                "{}: a miss, no transfer",
                event.name
            );
        }
        let remote = |events: &[Raw]| events.iter().any(|event| event.config == 0x04d3 && event.beyond);
        assert!(remote(SKYLAKE) && remote(ICE_LAKE));
        // Both parts of the remote fills, and their sum.
        for events in [ZEN_5, ZEN_6] {
            let config = |name: &str| events.iter().find(|event| event.name.ends_with(name)).map(|event| event.config);
            let parts = config("near_cache").zip(config("far_cache")).map(|(near, far)| near | far);
            assert_eq!(config("remote_cache"), parts);
        }
    }

    #[test]
    fn a_configuration_is_mask_and_event() {
        assert_eq!(SKYLAKE[2].config, 0x04d2);
    }
}
