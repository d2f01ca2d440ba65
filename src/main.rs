//! The binary `usher`: parses the command line, runs the command, and prints its error.

use std::process::ExitCode;

use clap::Parser as _;
use usher::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    match runtime.block_on(cli::run(cli)) {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

/// Prints what failed, then its causes, the nearest first.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("usher: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}
