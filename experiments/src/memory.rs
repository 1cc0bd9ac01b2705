//! What the kernel says of the memory of this process.

/// Resident and proportional set size of this process.
pub fn resident_bytes() -> Result<(u64, u64), String> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").map_err(|error| format!("smaps_rollup: {error}"))?;
    let field = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("smaps_rollup has no {name}"))?;
        let kib = line.trim().trim_end_matches(" kB").trim().parse::<u64>().map_err(|error| error.to_string())?;
        Ok::<_, String>(kib << 10)
    };
    Ok((field("Rss:")?, field("Pss:")?))
}

/// Mapped and resident bytes of this process: cheap enough to ask many times.
pub fn statm_bytes() -> Result<(u64, u64), String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|error| format!("statm: {error}"))?;
    let mut pages = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let page = match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(bytes)) => bytes as u64,
        _ => return Err("sysconf does not know the size of a page".into()),
    };
    match (pages.next(), pages.next()) {
        (Some(mapped), Some(resident)) => Ok((mapped * page, resident * page)),
        _ => Err("statm has no two numbers".into()),
    }
}
