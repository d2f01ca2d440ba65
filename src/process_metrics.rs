//! Metrics of the process, under the names of every Prometheus client library.
//!
//! Each scrape reads them from `/proc`. Without it, as outside Linux, the metrics are absent.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

#[derive(Debug)]
pub(crate) struct ProcessCollector;

struct Process {
    cpu_seconds: f64,
    start_time_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(process) = Process::read() {
            encode(
                &mut encoder,
                "process_cpu_seconds",
                "User and system CPU time spent, in seconds",
                &ConstCounter::new(process.cpu_seconds),
            )?;
            encode(
                &mut encoder,
                "process_start_time_seconds",
                "Start time of the process since the Unix epoch, in seconds",
                &ConstGauge::new(process.start_time_seconds),
            )?;
            encode(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory size, in bytes",
                &ConstGauge::new(process.resident_bytes),
            )?;
            encode(
                &mut encoder,
                "process_virtual_memory_bytes",
                "Virtual memory size, in bytes",
                &ConstGauge::new(process.virtual_bytes),
            )?;
        }
        if let Some(files) = open_files() {
            let help = "Number of open file descriptors";
            encode(
                &mut encoder,
                "process_open_fds",
                help,
                &ConstGauge::new(files),
            )?;
        }
        let limit = getrlimit(Resource::Nofile).current;
        if let Some(files) = limit.and_then(|limit| i64::try_from(limit).ok()) {
            let help = "Maximum number of open file descriptors";
            encode(
                &mut encoder,
                "process_max_fds",
                help,
                &ConstGauge::new(files),
            )?;
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

impl Process {
    #[cfg(target_os = "linux")]
    fn read() -> Option<Self> {
        let stat = procfs::process::Process::myself().ok()?.stat().ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let start = procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks;
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            start_time_seconds: start,
            virtual_bytes: i64::try_from(stat.vsize).ok()?,
            resident_bytes: i64::try_from(stat.rss.saturating_mul(procfs::page_size())).ok()?,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Option<Self> {
        None
    }
}

/// Counts the open files.
///
/// Since Linux 6.2 the size of the directory is the number, which costs the same for any number of sockets. procfs knows
/// this too, but counts its own files and, before 6.2, `.` and `..`.
fn open_files() -> Option<i64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    let count = if size > 0 {
        size
    } else {
        // Reading the directory opens one more.
        (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)
    };
    i64::try_from(count).ok()
}
