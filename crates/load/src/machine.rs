//! Measures the CPU and memory of processes on this machine, from `/proc`. Values are unknown on systems without it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::getpid;

/// The resources used up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of this process, in microseconds.
    pub(crate) generator_us: u64,
    pub(crate) generator_bytes: u64,
    /// CPU time of the gateway, if it runs on this machine.
    pub(crate) gateway_us: Option<u64>,
    pub(crate) gateway_bytes: Option<u64>,
    /// CPU ticks of the whole machine: busy, and all.
    pub(crate) machine: Option<(u64, u64)>,
}

impl Usage {
    /// Reads the current values.
    pub(crate) fn read(gateway: Option<u32>) -> Self {
        let own = process(&getpid().as_raw_nonzero().to_string());
        let gateway = gateway.and_then(|pid| process(&pid.to_string()));
        Self {
            generator_us: own.map_or(0, |own| own.0),
            generator_bytes: own.map_or(0, |own| own.1),
            gateway_us: gateway.map(|gateway| gateway.0),
            gateway_bytes: gateway.map(|gateway| gateway.1),
            machine: machine(),
        }
    }

    /// Returns the share of the machine's CPU that was busy since `then`.
    pub(crate) fn machine_busy_since(&self, then: &Self) -> Option<f64> {
        let ((busy, all), (busy_then, all_then)) = (self.machine?, then.machine?);
        let all = all.checked_sub(all_then).filter(|ticks| *ticks > 0)?;
        Some(busy.saturating_sub(busy_then) as f64 / all as f64)
    }

    /// Returns the cores that the gateway used since `then`.
    pub(crate) fn gateway_cores_since(&self, then: &Self, elapsed_us: u64) -> Option<f64> {
        let used_us = self.gateway_us?.checked_sub(then.gateway_us?)?;
        Some(used_us as f64 / elapsed_us.max(1) as f64)
    }

    /// Returns the cores that this process used since `then`.
    pub(crate) fn generator_cores_since(&self, then: &Self, elapsed_us: u64) -> f64 {
        self.generator_us.saturating_sub(then.generator_us) as f64 / elapsed_us.max(1) as f64
    }
}

/// Returns a process's CPU time in microseconds and its resident bytes.
fn process(pid: &str) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain any character, and ends with the last bracket.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let us = ticks * 1_000_000 / clock_ticks_per_second();
    Some((us, number(21)? * page_size() as u64))
}

fn machine() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1);
    // User, nice, system, idle, iowait, irq, softirq, steal. The later fields are part of user.
    let ticks: Vec<u64> = fields
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let all: u64 = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

/// Returns the number of cores that a process may use.
pub(crate) fn cores_of(pid: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let ranges = list.trim().split(',').map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(to.parse::<usize>().ok()? - from.parse::<usize>().ok()? + 1)
    });
    ranges.sum()
}

/// Returns the name of the operating system.
pub(crate) fn system() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, version.trim())
        .trim()
        .to_owned()
}

/// Returns the process that listens on an address of this machine.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables
        .iter()
        .find_map(|table| listening_inode(table, address.port()))?;
    let link = format!("socket:[{inode}]");
    let mut processes = fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        holds(&process.path().join("fd"), &link).then_some(pid)
    })
}

fn holds(files: &Path, link: &str) -> bool {
    let Ok(mut files) = fs::read_dir(files) else {
        return false;
    };
    files.any(|file| {
        file.is_ok_and(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link))
    })
}

/// Returns the inode of the socket that listens on a port, from the text of `/proc/net/tcp`.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTENING;
        if is_it { fields.get(9).copied() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = super::listener(listener.local_addr().unwrap());
        assert_eq!(found, Some(std::process::id()));
        assert!(cores_of(std::process::id()).unwrap() >= 1);
        assert_eq!(super::listener("10.1.2.3:80".parse().unwrap()), None);
    }

    #[test]
    fn usage_grows() {
        let then = Usage::read(Some(std::process::id()));
        assert!(then.generator_bytes > 1_000_000 && then.gateway_bytes.is_some());
        let now = Usage::read(None);
        assert!(now.generator_us >= then.generator_us);
        assert_eq!(now.gateway_cores_since(&then, 1), None);
    }
}
