//! What the operating system says this process holds.

use std::fs;

/// Bytes of memory resident now; `None` where the system keeps no `/proc/self/status`.
pub fn resident_bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_in_bytes() {
        let check = |status: &str, expected| assert_eq!(parse(status), expected, "{status}");
        check("Name:\telenchus\nVmHWM:\t  900 kB\nVmRSS:\t  12345 kB\nThreads:\t2\n", Some(12_641_280));
        check("VmRSS:\t12 pages", None);
        check("", None);
        if cfg!(target_os = "linux") {
            assert!(resident_bytes().unwrap() > 1 << 20);
        }
    }
}
