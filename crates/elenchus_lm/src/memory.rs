//! Memory of this process and of the machine, as the operating system reports it.

use std::fs;

/// Bytes of memory resident now; `None` where the system has no `/proc/self/status`.
pub fn resident_bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The most bytes of memory that were resident since the process began; `None` where the system has no
/// `/proc/self/status`.
pub fn peak_resident_bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Memory of this machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// All of it.
    pub total: u64,
    /// What a new program can have without others being swapped out.
    pub available: u64,
}

/// This machine's memory; `None` where the system has no `/proc/meminfo`.
pub fn machine_memory() -> Option<MachineMemory> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    Some(MachineMemory { total: parse(&info, "MemTotal:")?, available: parse(&info, "MemAvailable:")? })
}

fn parse(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_in_bytes() {
        let check =
            |status: &str, field: &str, expected| assert_eq!(parse(status, field), expected, "{field} of {status}");
        let status = "Name:\telenchus\nVmHWM:\t  900 kB\nVmRSS:\t  12345 kB\nThreads:\t2\n";
        check(status, "VmRSS:", Some(12_641_280));
        check(status, "VmHWM:", Some(921_600));
        check("VmRSS:\t12 pages", "VmRSS:", None);
        check("", "VmRSS:", None);
        if cfg!(target_os = "linux") {
            let now = resident_bytes().unwrap();
            assert!(now > 1 << 20 && peak_resident_bytes().unwrap() >= now);
            let machine = machine_memory().unwrap();
            assert!(machine.total >= machine.available && machine.total > now);
        }
    }
}
