//! Measures the CPU and memory of processes and of the whole machine.
//!
//! The values exist only on Linux. On other systems they are absent.

use crate::proc;

/// The resources used up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of this process, in microseconds.
    pub(crate) generator_us: u64,
    pub(crate) generator_bytes: u64,
    /// CPU time of the gateway, if it runs on this machine.
    pub(crate) gateway_us: Option<u64>,
    pub(crate) gateway_bytes: Option<u64>,
    /// CPU ticks of all cores: busy, and in total.
    pub(crate) machine: Option<(u64, u64)>,
}

impl Usage {
    /// Reads the current values.
    pub(crate) fn read(gateway: Option<u32>) -> Self {
        let own = proc::process(std::process::id());
        let gateway = gateway.and_then(proc::process);
        Self {
            generator_us: own.map_or(0, |own| own.cpu_us),
            generator_bytes: own.map_or(0, |own| own.resident_bytes),
            gateway_us: gateway.map(|gateway| gateway.cpu_us),
            gateway_bytes: gateway.map(|gateway| gateway.resident_bytes),
            machine: proc::machine(),
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

/// Returns the name and release of the operating system.
pub(crate) fn system() -> String {
    let release = rustix::system::uname();
    format!(
        "{} {}",
        std::env::consts::OS,
        release.release().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = proc::listener(listener.local_addr().unwrap());
        assert_eq!(found, Some(std::process::id()));
        assert!(proc::cores_of(std::process::id()).unwrap() >= 1);
        assert_eq!(proc::listener("10.1.2.3:80".parse().unwrap()), None);
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
