//! Drops packets with nftables, in a network namespace of this program, so that no other program is affected.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};

/// The argument that tells the program that it already runs in the namespaces.
pub(crate) const INSIDE: &str = "--inside";

/// Runs this program again in new namespaces for network and mounts. Returns only if that fails, with the reason.
pub(crate) fn enter() -> String {
    if let Err(reason) = can_enter() {
        return reason;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\" \"$@\"")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .arg(INSIDE)
        .exec();
    error.to_string()
}

fn can_enter() -> Result<(), String> {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c"])
        .arg("ip link set lo up && nft add table inet usher_faults")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("no error message").to_owned();
            Err(format!(
                "no network namespace (root, iproute2 and nftables are needed): {said}"
            ))
        }
        Err(error) => Err(format!("no network namespace: unshare: {error}")),
    }
}

/// Drops all packets from and to some ports, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Silence(());

impl Silence {
    pub(crate) fn over(ports: &[u16]) -> io::Result<Self> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        nft(&format!(
            "table inet usher_faults {{
                chain silence {{
                    type filter hook input priority 0;
                    tcp sport {{ {ports} }} drop
                    tcp dport {{ {ports} }} drop
                }}
            }}"
        ))?;
        Ok(Self(()))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let lifted = nft("delete table inet usher_faults");
        lifted.expect("the table exists");
    }
}

fn nft(rules: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = nft.stdin.take().expect("stdin is a pipe");
    input.write_all(rules.as_bytes())?;
    drop(input);
    checked(nft.wait()?)
}

/// Mounts a small disk in memory that only this program and its children see.
pub(crate) fn mount_small_disk(at: &std::path::Path, mebibytes: u32) -> io::Result<()> {
    let size = format!("size={mebibytes}m");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "none"])
        .arg(at)
        .status()?;
    checked(mount)
}

fn checked(status: ExitStatus) -> io::Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}
