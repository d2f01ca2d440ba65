//! Reads `/proc` through procfs. It exists only on Linux; `no_proc` takes its place on other systems.

use std::net::SocketAddr;

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{Current as _, CurrentSI as _, KernelStats, LoadAverage, page_size, ticks_per_second};

use crate::process_usage::ProcessUsage;

/// Reads the resources that a process has used so far.
#[must_use]
pub fn process(pid: u32) -> Option<ProcessUsage> {
    let stat = of(pid)?.stat().ok()?;
    Some(ProcessUsage {
        cpu_us: (stat.utime + stat.stime) * 1_000_000 / ticks_per_second(),
        resident_bytes: stat.rss * page_size(),
    })
}

/// Lists the running child processes of a process.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let stats = all_processes().into_iter().flatten().flatten();
    stats
        .filter_map(|process| process.stat().ok())
        .filter(|stat| u32::try_from(stat.ppid) == Ok(pid))
        .filter_map(|stat| u32::try_from(stat.pid).ok())
        .collect()
}

/// Reads the load average of the last minute.
#[must_use]
pub fn load_average() -> Option<f32> {
    Some(LoadAverage::current().ok()?.one)
}

/// Reads the CPU ticks of all cores: busy, and in total.
pub(crate) fn machine() -> Option<(u64, u64)> {
    let ticks = KernelStats::current().ok()?.total;
    // The time of guests is part of user.
    let interrupts = ticks.irq? + ticks.softirq? + ticks.steal?;
    let busy = ticks.user + ticks.nice + ticks.system + interrupts;
    Some((busy, busy + ticks.idle + ticks.iowait?))
}

/// Counts the cores that a process may use.
pub(crate) fn cores_of(pid: u32) -> Option<usize> {
    let ranges = of(pid)?.status().ok()?.cpus_allowed_list?;
    let cores: u32 = ranges.iter().map(|(from, to)| to - from + 1).sum();
    usize::try_from(cores).ok()
}

/// Finds the process that listens on an address of this machine.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let sockets = [tcp(), tcp6()].into_iter().flatten().flatten();
    let inode = sockets
        .filter(|socket| socket.state == TcpState::Listen)
        .find(|socket| socket.local_address.port() == address.port())?
        .inode;
    let holder = all_processes().ok()?.flatten().find(|process| {
        process.fd().is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.target == FDTarget::Socket(inode)))
        })
    });
    u32::try_from(holder?.pid()).ok()
}

fn of(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}
