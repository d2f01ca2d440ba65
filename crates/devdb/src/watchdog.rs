//! Ends what we started, whatever happens to us.
//!
//! A small shell waits at the end of a pipe that only we hold. When the pipe closes (because we said so, were dropped,
//! crashed, or were killed with a signal that nobody can catch) it stops the child that it was told of, first politely,
//! and removes the directory that it was given. So there is one way to end, and no way around it. `PR_SET_PDEATHSIG`
//! was not taken: it follows the thread that forked, exists on Linux alone, and removes no directory.
//!
//! Shell and child have process groups of their own, so that an interrupt typed at a terminal reaches us and not them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};

/// How often a child is looked after. It is waited for by looking, since a handler for its end would tie it to the
/// runtime that started it, and tests share a cluster among runtimes.
const POLL: Duration = Duration::from_millis(10);

/// Looks after which an ending that should be over is ended by force: longer than the script's own three deadlines.
const END_POLLS: u32 = 1_000;

/// A line from us names the child's process group and the first signal to try. Quit is Postgres's immediate shutdown.
/// An empty line means that there is no child any more: its number may belong to somebody else by then.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
PATH="$PATH:/usr/bin:/bin"
group= first=
while read -r new_group new_first; do group=$new_group first=$new_first; done
if [ -n "$group" ]; then
    for signal in "$first" QUIT KILL; do
        kill -s "$signal" -- "-$group" 2>/dev/null || break
        polls=0
        while [ "$polls" -lt 60 ] && kill -s 0 -- "-$group" 2>/dev/null; do
            sleep 0.05
            polls=$((polls + 1))
        done
    done
fi
[ -z "$1" ] || rm -rf -- "$1"
"#;

/// How a child is asked to end, before it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FirstSignal {
    /// An interrupt: a server's fast shutdown.
    Interrupt,
    /// None, for what makes only what will be removed.
    Kill,
}

/// Looks after one child at a time and one directory. Dropping it ends both, and waits until they are gone.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    /// The end of the pipe that only we hold. `None` once we have let go.
    pipe: Option<ChildStdin>,
    child: Option<Child>,
    directory: Option<PathBuf>,
}

impl Watchdog {
    /// Starts to watch over `directory`, which is removed in the end.
    pub(crate) fn start(directory: Option<PathBuf>) -> io::Result<Self> {
        let argument = directory.clone().unwrap_or_default();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "usher-watchdog"])
            .arg(argument)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self {
            shell,
            pipe,
            child: None,
            directory,
        })
    }

    /// Starts a child in a process group of its own.
    ///
    /// # Panics
    ///
    /// When there is a child already.
    pub(crate) fn spawn(
        &mut self,
        command: &mut Command,
        first_signal: FirstSignal,
    ) -> io::Result<()> {
        assert!(self.child.is_none(), "one child at a time");
        let child = command.current_dir("/").process_group(0).spawn()?;
        let group = child.id();
        self.child = Some(child);
        let first = match first_signal {
            FirstSignal::Interrupt => "INT",
            FirstSignal::Kill => "KILL",
        };
        self.tell(&format!("{group} {first}"))
    }

    /// Whether the child has ended, and how.
    ///
    /// # Panics
    ///
    /// When there is no child.
    pub(crate) fn poll_exit(&mut self) -> io::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().expect("a child was started");
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
            self.tell("")?;
        }
        Ok(status)
    }

    /// Waits for the child to end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll_exit()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends the child a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.pid() {
            Some(pid) => Ok(rustix::process::kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    /// Ends the child and removes the directory, without keeping a thread.
    pub(crate) async fn end(mut self) {
        self.pipe = None;
        for _ in 0..END_POLLS {
            if self.is_over() {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        // What is left is the drop's to do.
    }

    /// The child's process id, while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{line}"),
            None => Ok(()),
        }
    }

    /// Whether shell and child are gone. Looking also reaps them: a child that nobody reaps looks alive to the shell.
    fn is_over(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        let is_shell_over = !matches!(self.shell.try_wait(), Ok(None));
        is_shell_over && self.child.is_none()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.pipe = None;
        let mut polls = 0;
        while !self.is_over() && polls < END_POLLS {
            thread::sleep(POLL);
            polls += 1;
        }
        // Only when somebody has killed the shell, or a disk hangs, is there still something to do.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_it_ends_the_child_and_removes_the_directory() {
        let directory = tempfile::tempdir().unwrap().keep();
        fs::write(directory.join("file"), "x").unwrap();
        let mut watchdog = Watchdog::start(Some(directory.clone())).unwrap();
        watchdog
            .spawn(Command::new("sleep").arg("100"), FirstSignal::Interrupt)
            .unwrap();
        let pid = watchdog.pid().unwrap();

        drop(watchdog);

        assert!(!directory.exists());
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_child_that_has_ended_is_forgotten() {
        let mut watchdog = Watchdog::start(None).unwrap();
        watchdog
            .spawn(&mut Command::new("true"), FirstSignal::Kill)
            .unwrap();
        while watchdog.poll_exit().unwrap().is_none() {
            thread::sleep(POLL);
        }
        assert_eq!(watchdog.pid(), None);
        watchdog
            .spawn(&mut Command::new("true"), FirstSignal::Kill)
            .unwrap();
    }
}
