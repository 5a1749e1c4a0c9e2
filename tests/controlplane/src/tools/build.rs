//! Builds a tool from its Go module into the cache.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio, id},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use super::{Module, Tool, cache, progress::Progress};

/// Lines of a failed build that are worth showing.
const TAIL_LINES: usize = 20;

/// What has been learnt about Go while looking up several tools.
#[derive(Default)]
pub(super) struct Workshop {
    /// By module folder, because a `go.mod` may select its own toolchain.
    keys: BTreeMap<&'static str, String>,
}

impl Workshop {
    /// The tool's place in the cache, after building it if it was not there.
    pub(super) fn built(&mut self, tool: Tool) -> Result<PathBuf> {
        let module = tool.module();
        let cache = cache()?;
        let folder = cache.join(format!("{}-{}", module.folder, self.key(module)?));
        let target = folder.join(tool.name());
        if target.is_file() {
            return Ok(target);
        }
        // One build at a time on this machine: a second one would only slow both down. Closing the file unlocks it.
        let _lock = lock(&cache.join("lock"))?;
        if !target.is_file() {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            build(tool, &target)?;
        }
        Ok(target)
    }

    fn key(&mut self, module: &Module) -> Result<&str> {
        if !self.keys.contains_key(module.folder) {
            self.keys
                .insert(module.folder, cache_key(module, &toolchain(module)?));
        }
        Ok(&self.keys[module.folder])
    }
}

/// Go's version and platform, one a line.
fn toolchain(module: &Module) -> Result<String> {
    let wanted = module.go_release();
    let output = go(module)
        .args(["env", "GOVERSION", "GOOS", "GOARCH"])
        .output()
        .map_err(|error| go_error(&error, wanted))?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = answer
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("go"))
        .unwrap_or_default();
    ensure!(
        output.status.success() && !release.is_empty(),
        "`go env` failed: {}",
        tail(&output.stderr)
    );
    ensure!(
        at_least(release, wanted),
        "Go {release} is too old for tests/controlplane/tools/{}: install Go {wanted} or newer, or set KUBEBUILDER_ASSETS to a folder with the binaries",
        module.folder
    );
    Ok(answer)
}

fn go_error(error: &std::io::Error, wanted: &str) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound {
        return anyhow!(
            "the program `go` was not found: install Go {wanted} or newer, which builds the tools that tests run against, or set KUBEBUILDER_ASSETS to a folder with the binaries"
        );
    }
    anyhow!("cannot run `go`: {error}")
}

/// Whether release `have` is `wanted` or newer. A part that is no number, as in `1.27rc1`, counts by its leading digits.
fn at_least(have: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| {
                part.chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>()
                    .parse()
                    .unwrap_or(0)
            })
            .collect()
    };
    numbers(have) >= numbers(wanted)
}

fn cache_key(module: &Module, toolchain: &str) -> String {
    let mut hash = Sha256::new();
    for part in [
        module.go_mod,
        module.go_sum,
        toolchain,
        &build_flags(module).join("\n"),
    ] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn build_flags(module: &Module) -> Vec<String> {
    let version = module
        .version_variable
        .map(|variable| format!(" -X {variable}={}", module.version()));
    let mut flags = vec![
        "-trimpath".into(),
        "-ldflags".into(),
        format!("-s -w{}", version.unwrap_or_default()),
    ];
    if !module.tags.is_empty() {
        flags.extend(["-tags".into(), module.tags.into()]);
    }
    flags
}

/// `go` in the module's folder, deaf to a workspace around it.
fn go(module: &Module) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module.source())
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null());
    command
}

fn build(tool: Tool, target: &Path) -> Result<()> {
    let module = tool.module();
    // Renamed when complete, so that nobody ever runs half a binary.
    let unfinished = target.with_extension(format!("unfinished-{}", id()));
    let mut command = go(module);
    command
        .arg("build")
        .args(build_flags(module))
        .arg("-o")
        .arg(&unfinished)
        .arg(tool.package());

    let output = watch(command, &Progress::start(tool))?;
    if !output.status.success() {
        let _ = fs::remove_file(&unfinished);
        bail!(
            "building {tool} {} failed ({}):\n{}",
            tool.version(),
            output.status,
            tail(&output.stderr)
        );
    }
    fs::rename(&unfinished, target)
        .with_context(|| format!("cannot move the built {tool} to {}", target.display()))
}

/// Runs `command` to its end, telling `progress` that time passes.
fn watch(mut command: Command, progress: &Progress) -> Result<Output> {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `go`")?;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = loop {
        match ended.recv_timeout(progress.interval()) {
            Ok(output) => break output.context("cannot wait for `go`")?,
            Err(mpsc::RecvTimeoutError::Timeout) => progress.tick(),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the thread that waits for `go` panicked")
            }
        }
    };
    progress.end(output.status.success());
    Ok(output)
}

/// Holds the cache for one process at a time, until the file is closed.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| {
        format!(
            "cannot write to the cache of built tools, {}",
            path.display()
        )
    })?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            super::progress::say("waiting for another process, which is building tools");
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).context("cannot lock the cache of built tools");
        }
    }
    file.lock()
        .context("cannot lock the cache of built tools")?;
    Ok(file)
}

fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_releases_compare_by_number() {
        assert!(at_least("1.26.0", "1.26.0"));
        assert!(at_least("1.100.1", "1.26.0"));
        assert!(at_least("1.27rc1", "1.26.0"));
        assert!(!at_least("1.9.7", "1.26.0"));
        assert!(!at_least("1.25.9", "1.26.0"));
    }

    #[test]
    fn the_cache_key_depends_on_the_toolchain_and_the_module() {
        let key = |tool: Tool, toolchain| cache_key(tool.module(), toolchain);
        assert_eq!(key(Tool::Crane, "go1.26.8"), key(Tool::Crane, "go1.26.8"));
        assert_ne!(key(Tool::Crane, "go1.26.8"), key(Tool::Crane, "go1.26.9"));
        assert_ne!(key(Tool::Crane, "go1.26.8"), key(Tool::Etcd, "go1.26.8"));
    }
}
