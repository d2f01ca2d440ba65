//! What the operating system knows of this process, under the names that every Prometheus client library uses.
//!
//! Read from `/proc` at each scrape; where there is none, as outside Linux, the metrics are absent.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads the process at each scrape.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

/// What one look found.
struct Process {
    cpu_seconds: f64,
    start_time_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(process) = Process::read() {
            let cpu = ConstCounter::new(process.cpu_seconds);
            let help = "User and system CPU time spent, in seconds";
            cpu.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                cpu.metric_type(),
            )?)?;
            let start = ConstGauge::new(process.start_time_seconds);
            let help = "Start time of the process since the Unix epoch, in seconds";
            start.encode(encoder.encode_descriptor(
                "process_start_time_seconds",
                help,
                None,
                start.metric_type(),
            )?)?;
            for (name, help, bytes) in [
                (
                    "process_resident_memory_bytes",
                    "Resident memory size, in bytes",
                    process.resident_bytes,
                ),
                (
                    "process_virtual_memory_bytes",
                    "Virtual memory size, in bytes",
                    process.virtual_bytes,
                ),
            ] {
                let gauge = ConstGauge::new(bytes);
                gauge.encode(encoder.encode_descriptor(
                    name,
                    help,
                    None,
                    gauge.metric_type(),
                )?)?;
            }
        }
        for (name, help, files) in [
            (
                "process_open_fds",
                "Number of open file descriptors",
                open_files(),
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                getrlimit(Resource::Nofile)
                    .current
                    .and_then(|limit| i64::try_from(limit).ok()),
            ),
        ] {
            let Some(files) = files else { continue };
            let gauge = ConstGauge::new(files);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

impl Process {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold anything, and ends with the last bracket. Counted from there, the fields of proc(5) are 3, 4, …
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot_seconds: u64 = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()?;
        let resident = number(24)?.saturating_mul(page_size() as u64);
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
            start_time_seconds: boot_seconds as f64 + number(22)? as f64 / ticks,
            virtual_bytes: i64::try_from(number(23)?).ok()?,
            resident_bytes: i64::try_from(resident).ok()?,
        })
    }
}

/// Linux 6.2 and newer give the number as the size of the directory, which costs the same for any number of sockets.
fn open_files() -> Option<i64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    let count = if size > 0 {
        size
    } else {
        // Without the one that lists them.
        (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)
    };
    i64::try_from(count).ok()
}
