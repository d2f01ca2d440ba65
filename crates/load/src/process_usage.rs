//! What a process has used of the machine.

/// What one process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    /// CPU time, user and system, in microseconds.
    pub cpu_us: u64,
    /// Resident memory.
    pub resident_bytes: u64,
}
