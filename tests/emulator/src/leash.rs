//! Child processes that never outlive this one.
//!
//! Between us and the child stands a shell that waits for the end of its standard input, a pipe whose other end we hold. When we end, in
//! whatever way, the kernel closes the pipe and the shell ends the child. No unsafe code, and it works where there is no `prctl`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, Command};

/// Prints the child's process id. Background jobs get /dev/null as input, so the pipe is passed on as descriptor 3; `read` is a builtin,
/// which leaves no further process behind. When the child ends by itself, the shell ends with its status.
const SCRIPT: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null >&2 &
child=$!
(read -r _ <&3; kill "$child") >/dev/null 2>&1 &
watch=$!
exec 3<&- </dev/null
echo "$child"
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Removes a directory once this process has ended, in whatever way; the pipe returned must live until then.
pub fn remove_at_end(dir: &Path) -> anyhow::Result<ChildStdin> {
    let mut shell = Command::new("sh")
        .args(["-c", r#"read -r _; rm -rf -- "$1""#, "sh"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("sh")?;
    shell.stdin.take().context("no pipe")
}

/// A running child.
#[derive(Debug)]
pub struct Leashed {
    shell: Child,
    leash: ChildStdin,
    pid: u32,
}

impl Leashed {
    /// Starts `program`, and waits until its standard error has a line that contains `ready`; that line is returned. All lines go to `log`.
    pub async fn start(
        program: &Path,
        args: &[&OsStr],
        log: &Path,
        ready: &str,
    ) -> anyhow::Result<(Self, String)> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(program)
            .args(args)
            // The child's configuration can be overridden by its environment; only ours counts.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("sh")?;
        let leash = shell.stdin.take().context("no pipe")?;
        let stdout = shell.stdout.take().context("no output")?;
        let stderr = shell.stderr.take().context("no errors")?;
        let mut log = File::options().create(true).append(true).open(log).await?;
        let begin = async {
            let pid = BufReader::new(stdout).lines().next_line().await?;
            let pid = pid.context("no process id")?.parse()?;
            let mut lines = BufReader::new(stderr).lines();
            let line = wait_for(&mut lines, ready, &mut log).await?;
            anyhow::Ok((pid, line, lines))
        };
        let (pid, line, lines) = tokio::time::timeout(START_LIMIT, begin)
            .await
            .with_context(|| format!("no {ready:?} in {START_LIMIT:?}"))??;
        tokio::spawn(keep_log(lines, log));
        Ok((Self { shell, leash, pid }, line))
    }

    /// Process id of the child itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the child and waits until it has ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.leash);
        tokio::time::timeout(STOP_LIMIT, self.shell.wait()).await??;
        Ok(())
    }
}

async fn wait_for(
    lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>,
    ready: &str,
    log: &mut File,
) -> anyhow::Result<String> {
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        log.write_all(format!("{line}\n").as_bytes()).await?;
        if line.contains(ready) {
            return Ok(line);
        }
        last = line;
    }
    bail!("ended at once: {last}")
}

/// Keeps reading, since a full pipe would stop the child.
async fn keep_log(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>, mut log: File) {
    while let Ok(Some(line)) = lines.next_line().await {
        if log.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
