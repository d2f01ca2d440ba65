//! Proves `usher dev` as a user runs it: the process starts, works, and cleans up however it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use usher_core::auth::{
    identity::Role,
    verifier::{Verifier, VerifierKeys},
};

use crate::database::connect;

const NOBODY: u32 = 65_534;

#[tokio::test]
async fn one_json_line_tells_everything_and_a_signal_ends_everything() {
    let mut dev = Dev::start(&[]);
    let ready = dev.ready();

    let superuser = connect(ready["database_url"].as_str().unwrap()).await;
    let row = superuser.query_one(
        "select usesuper from pg_user where usename = current_user",
        &[],
    );
    assert!(row.await.unwrap().get::<_, bool>(0));
    let gateway = connect(ready["gateway_database_url"].as_str().unwrap()).await;
    let row = gateway
        .query_one("select current_user::text", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "usher_gateway");

    let secret = ready["jwt_secret"].as_str().unwrap().to_owned().into();
    let verifier = Verifier::new(VerifierKeys::from_secret(&secret));
    let now = jsonwebtoken::get_current_timestamp();
    let anon = verifier
        .verify(ready["anon_key"].as_str().unwrap(), now)
        .unwrap();
    assert_eq!(anon.role, Role::Anon);
    let users = ready["users"].as_array().unwrap();
    for user in users {
        let identity = verifier
            .verify(user["token"].as_str().unwrap(), now)
            .unwrap();
        assert_eq!(
            identity.subject.unwrap().to_string(),
            user["id"].as_str().unwrap()
        );
        assert!(!user["username"].as_str().unwrap().is_empty());
    }
    let count = |role| users.iter().filter(|user| user["role"] == role).count();
    assert!(count("streamer") >= 1 && count("moderator") >= 1 && count("viewer") >= 3);

    assert_eq!(
        ready["url"].as_str().unwrap().find("http://127.0.0.1:"),
        Some(0)
    );
    let socket = ready["socket"].as_str().unwrap();
    assert!(socket.starts_with("ws://127.0.0.1:") && socket.ends_with("/v1/socket"));
    let query = "select count(*) from public.voting_options o
        join public.voting_sessions v on v.id = o.voting_session_id
        where v.id::text = $1 and v.session_id::text = $2 and o.movie_id::text = any ($3)";
    let text = |key: &str| ready[key].as_str().unwrap().to_owned();
    let movies: Vec<_> = ready["movies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m.as_str().unwrap())
        .collect();
    assert!(movies.len() >= 2);
    let row = superuser
        .query_one(query, &[&text("voting"), &text("session"), &movies])
        .await;
    assert_eq!(
        usize::try_from(row.unwrap().get::<_, i64>(0)).unwrap(),
        movies.len()
    );

    dev.signal(Signal::TERM);
    dev.assert_ended_well();
}

#[test]
fn a_second_one_works_beside_the_first_and_a_taken_port_is_said() {
    let mut first = Dev::start(&[]);
    let address = first.ready()["url"]
        .as_str()
        .unwrap()
        .replace("http://", "");
    let mut second = Dev::start(&[]);
    second.ready();

    let mut third = Dev::start(&["--listen", &address]);
    let (status, stderr) = third.wait();
    assert_eq!(status, Some(1));
    let sentence = stderr
        .lines()
        .find(|line| line.contains("is taken"))
        .unwrap();
    assert!(
        sentence.contains("such as --listen 127.0.0.1:"),
        "{sentence}"
    );
    third.assert_nothing_left();

    for dev in [&mut first, &mut second] {
        dev.signal(Signal::INT);
        dev.assert_ended_well();
    }
}

#[test]
fn a_signal_while_it_starts_ends_it_too() {
    for delay_ms in [0, 60, 200, 400, 700, 1_000] {
        let mut dev = Dev::start(&[]);
        // Before this line the process does not handle signals yet.
        while !dev.stderr().contains("starting") {
            thread::sleep(Duration::from_millis(5));
        }
        // The signal arrives at a different step of the start in each round.
        thread::sleep(Duration::from_millis(delay_ms));
        // As a terminal does: to the whole process group.
        let group = Pid::from_child(&dev.child);
        rustix::process::kill_process_group(group, Signal::INT).unwrap();
        dev.assert_ended_well();
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let mut ready = Dev::start(&[]);
    ready.ready();
    let starting = Dev::start(&[]);
    // The second process is killed in the middle of its start.
    thread::sleep(Duration::from_millis(300));
    for mut dev in [ready, starting] {
        dev.signal(Signal::KILL);
        let (status, _) = dev.wait();
        assert_eq!(status, None);
        dev.assert_nothing_left();
    }
}

#[test]
fn root_becomes_somebody_else_and_anybody_else_stays_themselves() {
    if !rustix::process::geteuid().is_root() {
        // The other tests have shown it then.
        return;
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_usher"));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for needed in [&program, repository] {
        let is_open = needed.ancestors().all(|path| {
            fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
        });
        assert!(
            is_open,
            "this test runs {} as nobody, who cannot reach it",
            needed.display()
        );
    }
    let home = open_directory();
    let mut command = usher(home.path(), &[]);
    command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
    let mut dev = Dev::spawn(command, home);
    dev.ready();
    dev.signal(Signal::TERM);
    dev.assert_ended_well();
}

#[test]
fn root_with_a_private_tmpdir_is_served_too() {
    let home = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let command = usher(home.path(), &[]);
    let mut dev = Dev::spawn(command, home);
    dev.ready();
    dev.signal(Signal::TERM);
    dev.assert_ended_well();
}

#[tokio::test]
async fn data_that_is_named_is_kept_and_taken_by_one_at_a_time() {
    let kept = open_directory();
    let data = kept.path().join("data directory");
    let data = ["--data", data.to_str().unwrap()];

    let mut first = Dev::start(&data);
    let ready = first.ready();
    let client = connect(ready["database_url"].as_str().unwrap()).await;
    client
        .batch_execute("create table public.kept (n int)")
        .await
        .unwrap();
    drop(client);
    let mut other = Dev::start(&data);
    let (status, stderr) = other.wait();
    assert_eq!(status, Some(1));
    assert!(stderr.contains("in use"), "{stderr}");
    first.signal(Signal::TERM);
    first.assert_ended_well();

    let mut second = Dev::start(&data);
    let again = second.ready();
    let client = connect(again["database_url"].as_str().unwrap()).await;
    client
        .batch_execute("drop table public.kept")
        .await
        .unwrap();
    for key in ["session", "voting", "jwt_secret"] {
        assert_eq!(again[key], ready[key]);
    }
    let row = client.query_one("show fsync", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "on");
    drop(client);
    second.signal(Signal::TERM);
    second.assert_ended_well();
}

/// A running `usher dev --json` with its own TMPDIR.
struct Dev {
    child: Child,
    home: TempDir,
    log: tempfile::NamedTempFile,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let home = open_directory();
        let command = usher(home.path(), arguments);
        Self::spawn(command, home)
    }

    fn spawn(mut command: Command, home: TempDir) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, home, log }
    }

    fn ready(&mut self) -> Value {
        let mut stdout = BufReader::new(self.child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        // Later output must not block. It is no part of the contract.
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}\n{}", self.stderr()))
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the exit status, if the process exited without a signal, and everything on standard error.
    fn wait(&mut self) -> (Option<i32>, String) {
        for _ in 0..1_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.stderr());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("still there after 10 s\n{}", self.stderr());
    }

    fn assert_ended_well(&mut self) {
        let (status, stderr) = self.wait();
        assert_eq!(status, Some(0), "{stderr}");
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        // After a kill, the watchdog may still be cleaning up.
        for _ in 0..1_000 {
            if self.left().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("left behind: {:?}\n{}", self.left(), self.stderr());
    }

    /// Files in TMPDIR, and processes that were started with it.
    fn left(&self) -> Vec<String> {
        let files = fs::read_dir(self.home.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        let mut left: Vec<_> = files.map(|path| path.display().to_string()).collect();
        let marker = format!("TMPDIR={}", self.home.path().display());
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|one| one == marker.as_bytes())
            {
                let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
                left.push(String::from_utf8_lossy(&command).replace('\0', " "));
            }
        }
        left
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // After a failed assertion; the watchdog does the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn usher(tmpdir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command
        .args(["dev", "--json"])
        .args(arguments)
        .env("TMPDIR", tmpdir);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
}

/// A directory that every account may use, as a TMPDIR usually is.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    directory
}
