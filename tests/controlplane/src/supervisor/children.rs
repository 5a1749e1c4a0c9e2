//! The programs of a control plane as child processes, each leading a process group.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use futures::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Child as Process, time::timeout};

/// How long a program may take to end by itself. Short, because the API server would wait for every open watch, and nothing that is
/// lost when it is killed is of worth.
const GRACE: Duration = Duration::from_secs(1);
const TAIL_LINES: usize = 15;

/// Programs that run.
#[derive(Default)]
pub(crate) struct Children(Vec<Child>);

struct Child {
    name: &'static str,
    pid: u32,
    process: Process,
    log: PathBuf,
}

impl Children {
    /// Starts `program`, with its output in `logs/NAME.log`.
    pub(crate) fn start(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[String],
        logs: &Path,
    ) -> Result<()> {
        self.start_with(name, program, arguments, &[], logs)
    }

    /// The same with variables in its environment.
    pub(crate) fn start_with(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        logs: &Path,
    ) -> Result<()> {
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let process = tokio::process::Command::from(command(program)?)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(logs)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = process
            .id()
            .with_context(|| format!("{name} has no process id"))?;
        self.0.push(Child {
            name,
            pid,
            process,
            log,
        });
        Ok(())
    }

    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.0
            .iter()
            .map(|child| (child.name.to_owned(), child.pid))
            .collect()
    }

    /// Waits until one of them ends by itself, and says which and what it logged last.
    pub(crate) async fn death(&mut self) -> anyhow::Error {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let (status, index, _) = select_all(
            self.0
                .iter_mut()
                .map(|child| Box::pin(child.process.wait())),
        )
        .await;
        let Child { name, log, .. } = &self.0[index];
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow!(
            "{name} ended unexpectedly ({status}); the end of its log {}:\n{}",
            log.display(),
            tail(log)
        )
    }

    /// Ends all of them, at once: what they hold is not worth an orderly farewell.
    pub(crate) async fn end(&mut self) {
        join_all(self.0.drain(..).map(Child::end)).await;
    }
}

impl Child {
    async fn end(mut self) {
        // Already gone, and its id perhaps somebody else's.
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(GRACE, self.process.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = self.process.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// `program` by way of [`become_child`], where the system can tie it to our life: then even a supervisor killed with SIGKILL leaves
/// nothing behind.
fn command(program: &Path) -> Result<process::Command> {
    if !cfg!(target_os = "linux") {
        return Ok(process::Command::new(program));
    }
    let mut command =
        process::Command::new(env::current_exe().context("cannot find this program")?);
    command
        .args(["child", "--parent", &process::id().to_string(), "--"])
        .arg(program);
    Ok(command)
}

/// Turns this process into `command`, to be killed when its parent dies. Returns only if that fails.
pub fn become_child(parent: u32, command: &[OsString]) -> Result<()> {
    die_with_parent(parent)?;
    let [program, arguments @ ..] = command else {
        bail!("no program to run")
    };
    Err(process::Command::new(program).args(arguments).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}

#[cfg(target_os = "linux")]
fn die_with_parent(parent: u32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above.
    if std::os::unix::process::parent_id() != parent {
        bail!("the supervisor is gone");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_parent: u32) -> Result<()> {
    Ok(())
}
