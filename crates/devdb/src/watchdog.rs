//! Stops a child process and removes a directory when this process ends, however it ends.
//!
//! A small shell script waits on a pipe that only this process holds. The pipe closes when this process ends the
//! watchdog, drops it, crashes, or is killed with a signal that no process can catch. The script then stops the child,
//! politely at first, and removes the directory. Every end therefore takes the same path. `PR_SET_PDEATHSIG` is not
//! used: it depends on the thread that forked, exists only on Linux, and removes no directory.
//!
//! The shell and the child have their own process groups, so an interrupt typed at a terminal reaches
//! only this process.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal};

use crate::limits::{CHILD_POLL, END_POLLS};

/// Each input line names the child's process group and the first signal to try. `QUIT` is Postgres's immediate
/// shutdown. An empty line means that the child has ended: another process may have its number by then.
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

/// The first signal that ends a child.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FirstSignal {
    /// `INT`: a server's fast shutdown.
    Interrupt,
    /// `KILL`: for a child that only writes files that are removed anyway.
    Kill,
}

/// Watches at most one child, and one directory. Dropping it ends the child, removes the directory, and waits for both.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    /// The end of the pipe that only this process holds; `None` once it is closed.
    pipe: Option<ChildStdin>,
    child: Option<Child>,
    directory: Option<PathBuf>,
}

impl Watchdog {
    /// Starts a watchdog that removes `directory` at the end.
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

    /// Starts a child in its own process group.
    ///
    /// # Panics
    ///
    /// If there is a child already.
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

    /// Returns the child's exit status if it has ended.
    ///
    /// # Panics
    ///
    /// If there is no child.
    pub(crate) fn poll_exit(&mut self) -> io::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().expect("a child was started");
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
            self.tell("")?;
        }
        Ok(status)
    }

    /// Waits until the child ends.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll_exit()? {
                return Ok(status);
            }
            tokio::time::sleep(CHILD_POLL).await;
        }
    }

    /// Sends the child a signal, if there is a child.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.pid() {
            Some(pid) => Ok(rustix::process::kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    /// Ends the child and removes the directory without blocking a thread.
    pub(crate) async fn end(mut self) {
        self.pipe = None;
        for _ in 0..END_POLLS {
            if self.is_over() {
                break;
            }
            tokio::time::sleep(CHILD_POLL).await;
        }
        // The drop does the rest.
    }

    /// Returns the child's process id while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{line}"),
            None => Ok(()),
        }
    }

    /// Whether shell and child have ended. Also reaps them, because an unreaped child looks alive to the shell.
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
            thread::sleep(CHILD_POLL);
            polls += 1;
        }
        // Something is left to do only if the shell was killed or a disk hangs.
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
            thread::sleep(CHILD_POLL);
        }
        assert_eq!(watchdog.pid(), None);
        watchdog
            .spawn(&mut Command::new("true"), FirstSignal::Kill)
            .unwrap();
    }
}
