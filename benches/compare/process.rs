//! Runs a server as a process on its own core, and measures its resources.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use procfs::process::{Process, SmapsRollup};
use rustix::process::{Pid, Signal, kill_process};
use usher_load::proc;

use crate::clock::Clock;

/// Longest time until a server answers.
const START_TIMEOUT_US: u64 = 30_000_000;

/// Longest time that a server may take to end.
const STOP_TIMEOUT_US: u64 = 5_000_000;

/// A running server. Dropping it ends the process.
pub(crate) struct Server {
    child: Child,
    /// The process and its descendants.
    pids: Vec<u32>,
    clock: Clock,
}

/// Memory of a server's processes in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    /// Proportional set size: shared memory counts once.
    pub(crate) proportional_kib: u64,
}

impl Server {
    /// Starts a command on a core and waits until it answers. Its output goes to a file.
    pub(crate) fn start(
        command: &Command,
        core: usize,
        address: SocketAddr,
        log: &Path,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let mut pinned = Command::new("setpriv");
        // The kernel kills the server when this process ends, in whatever way.
        pinned.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()]);
        pinned.arg(command.get_program()).args(command.get_args());
        // A server must not inherit settings from the environment of the person who runs this.
        pinned.env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            #[expect(clippy::disallowed_methods, reason = "handed on, not read")]
            if let Some(value) = std::env::var_os(name) {
                pinned.env(name, value);
            }
        }
        for (name, value) in command.get_envs() {
            pinned.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = command.get_current_dir() {
            pinned.current_dir(folder);
        }
        let said = fs::File::create(log)?;
        pinned.stdin(Stdio::null());
        pinned.stdout(said.try_clone()?).stderr(said);
        let child = pinned.spawn().context("start setpriv and taskset")?;
        let mut server = Self {
            child,
            pids: Vec::new(),
            clock,
        };
        let deadline_us = clock.now_us() + START_TIMEOUT_US;
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || clock.now_us() > deadline_us {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{command:?} does not serve:\n{said}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Leaves time for child processes to start, and for the probing connection to close.
        thread::sleep(Duration::from_millis(300));
        server.pids = tree(server.child.id());
        Ok(server)
    }

    /// Returns the CPU time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut used_us = 0;
        for pid in &self.pids {
            let usage = proc::process(*pid);
            used_us += usage
                .with_context(|| format!("process {pid} has ended"))?
                .cpu_us;
        }
        Ok(used_us as f64 / 1e6)
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let mut memory = Memory {
            resident_kib: 0,
            proportional_kib: 0,
        };
        for pid in &self.pids {
            let rollup = Process::new(i32::try_from(*pid)?)?.smaps_rollup()?;
            memory.resident_kib += kib_of(&rollup, "Rss")?;
            memory.proportional_kib += kib_of(&rollup, "Pss")?;
        }
        Ok(memory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline_us = self.clock.now_us() + STOP_TIMEOUT_US;
        while matches!(self.child.try_wait(), Ok(None)) && self.clock.now_us() < deadline_us {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a free port.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Reads the ticks of one core: busy, and in total. By hand, since procfs drops the core's number.
pub(crate) fn core_ticks(core: usize) -> anyhow::Result<(u64, u64)> {
    let file = BufReader::new(fs::File::open("/proc/stat")?);
    let name = format!("cpu{core} ");
    for line in file.lines() {
        let line = line?;
        let Some(fields) = line.strip_prefix(&name) else {
            continue;
        };
        let ticks: Vec<u64> = fields
            .split_whitespace()
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let all: u64 = ticks.iter().sum();
        return Ok((all - ticks[3] - ticks[4], all));
    }
    bail!("core {core} is not in /proc/stat")
}

/// Lists a process and its descendants.
fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut place = 0;
    while place < pids.len() {
        pids.extend(proc::children(pids[place]));
        place += 1;
    }
    pids
}

/// Reads one line of a memory map's summary, in KiB.
fn kib_of(rollup: &SmapsRollup, name: &str) -> anyhow::Result<u64> {
    let all = rollup.memory_map_rollup.iter().next();
    let bytes = all.and_then(|all| all.extension.map.get(name));
    Ok(bytes.with_context(|| format!("read {name} of a process"))? / 1024)
}
