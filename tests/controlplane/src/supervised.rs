//! The supervisor as a child process of whoever needs a control plane.

use std::{
    collections::VecDeque,
    env,
    io::{BufRead as _, BufReader, Write as _, stderr},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

const PROGRAM: &str = "controlplane";
/// Generous, because a machine may be busy compiling.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Longer than the supervisor gives its programs.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 30;

/// A running supervisor. It ends everything when the pipe to its stdin closes: when this is dropped, or this process dies.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Option<JoinHandle<VecDeque<String>>>,
}

impl Supervised {
    /// Starts a supervisor by the name of its subcommand and waits until it says that what it runs is ready.
    pub(crate) fn start<R: DeserializeOwned>(
        subcommand: &str,
        arguments: &[String],
    ) -> Result<(Self, R)> {
        let program = program()?;
        let mut child = Command::new(&program)
            .arg(subcommand)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stdin = child.stdin.take();
        let (stdout, errors) = (
            child.stdout.take().context("no stdout")?,
            child.stderr.take().context("no stderr")?,
        );
        let mut supervised = Self {
            child,
            stdin,
            stderr: Some(thread::spawn(|| relay(errors))),
        };
        match first_line(stdout, READY_WITHIN)? {
            Some(line) => Ok((
                supervised,
                serde_json::from_str(&line).context("the supervisor said something unreadable: is it older than this library? Run `cargo build --workspace --all-targets`")?,
            )),
            None => bail!(
                "`controlplane {subcommand}` did not start:\n{}",
                supervised.last_words()
            ),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and returns the end of what it wrote to stderr.
    fn last_words(&mut self) -> String {
        self.end();
        let lines = self
            .stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        Vec::from(lines).join("\n")
    }

    fn end(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + ENDS_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its programs die with it: see `supervisor::become_child`.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.end();
    }
}

/// The supervisor's first line; none if it ends before, or if it takes too long.
fn first_line(stdout: ChildStdout, limit: Duration) -> Result<Option<String>> {
    let (sender, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let length = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(length.map(|length| (length > 0).then_some(line)));
    });
    match line.recv_timeout(limit) {
        Ok(line) => line.context("cannot read from the supervisor"),
        Err(_) => bail!("it was not ready within {limit:?}"),
    }
}

/// Passes the supervisor's stderr on, past the test harness, which would swallow it; keeps the last lines for an error.
fn relay(errors: ChildStderr) -> VecDeque<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        let _ = writeln!(stderr(), "{line}");
        last.push_back(line);
        if last.len() > TAIL_LINES {
            last.pop_front();
        }
    }
    last
}

/// The supervisor's program: where `CONTROLPLANE_BIN` says, else where cargo puts it, seen from a binary, a test or an example.
fn program() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CONTROLPLANE_BIN").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let this = env::current_exe().context("cannot find this program")?;
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "the program `{PROGRAM}` is not beside {}: run `cargo build --workspace --all-targets`",
            this.display()
        )
    })
}
