//! Keeps the log of a gateway for its test. A logged error fails the test, and a failing test prints the rest of the
//! log.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const FILTER: &str = "warn,usher=debug";

/// The log of one gateway.
pub(crate) struct Log {
    lines: Receiver<(Level, String)>,
    kept: Vec<(Level, String)>,
}

impl Log {
    /// A log, and the dispatcher that fills it.
    pub(crate) fn capture() -> (Self, Dispatch) {
        let (sender, lines) = channel();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_ansi(false)
            .with_writer(Capture(sender))
            .finish();
        let kept = Vec::new();
        (Self { lines, kept }, Dispatch::new(subscriber))
    }

    /// Everything so far.
    pub(crate) fn text(&mut self) -> String {
        self.kept.extend(self.lines.try_iter());
        self.kept.iter().map(|(_, line)| line.as_str()).collect()
    }

    /// Returns the errors, which should alert an operator.
    pub(crate) fn errors(&mut self) -> String {
        self.kept.extend(self.lines.try_iter());
        let errors = self.kept.iter().filter(|(level, _)| *level == Level::ERROR);
        errors.map(|(_, line)| line.as_str()).collect()
    }

    /// Returns the errors and forgets them, for tests that cause errors on purpose.
    pub(crate) fn take_errors(&mut self) -> String {
        let errors = self.errors();
        self.kept.retain(|(level, _)| *level != Level::ERROR);
        errors
    }
}

struct Capture(Sender<(Level, String)>);

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Level::INFO, self.0.clone())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(*metadata.level(), self.0.clone())
    }
}

/// Takes one line: the formatter writes each in one go.
struct Line(Level, Sender<(Level, String)>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A test that is over needs no log.
        let _ = self
            .1
            .send((self.0, String::from_utf8_lossy(bytes).into_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
