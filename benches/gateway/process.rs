//! What the system knows of a process: processor time and memory, from /proc.

use std::fs;

/// Processor time of a process and of its threads so far, in seconds.
pub fn cpu_s(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own_s)
}

/// Of this process.
pub fn own_cpu_s() -> f64 {
    cpu_s(std::process::id())
}

/// Of a server that has a process for each connection: itself, what its children have used, and
/// what those used that have ended.
pub fn family_cpu_s(pid: u32) -> f64 {
    let children: f64 = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(stat)
        .filter(|stat| stat.parent == pid)
        .map(|stat| stat.own_s)
        .sum();
    let own = stat(pid).map_or(0.0, |stat| stat.own_s + stat.ended_s);
    own + children
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|stat| stat.parent)
}

/// Memory in use now, and the most so far, in MiB.
pub fn memory_mib(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0.0)
    };
    (kib("VmRSS:") / 1024.0, kib("VmHWM:") / 1024.0)
}

struct Stat {
    parent: u32,
    own_s: f64,
    ended_s: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    // The unit of these fields, in Linux's interface on every architecture that we build for.
    const TICKS_PER_S: f64 = 100.0;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let seconds = |from: usize| -> Option<f64> {
        let ticks: f64 = fields.get(from)?.parse::<f64>().ok()?;
        Some(ticks / TICKS_PER_S)
    };
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_s: seconds(11)? + seconds(12)?,
        ended_s: seconds(13)? + seconds(14)?,
    })
}
