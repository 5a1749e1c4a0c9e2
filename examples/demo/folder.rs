//! The private folder that everything lives in.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tracing::level_filters::LevelFilter;

use crate::story::Story;

const LOG_LINES: usize = 15;

/// A folder that only its owner can look into; removed at the end.
pub struct Folder {
    dir: TempDir,
    keep: bool,
}

impl Folder {
    pub fn create(keep: bool) -> Result<Self> {
        // mkdtemp: mode 0700.
        let mut dir = tempfile::Builder::new().prefix("acrcred-demo-").tempdir()?;
        dir.disable_cleanup(keep);
        let folder = Self { dir, keep };
        folder.log_the_emulator()?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A folder in it, as private.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(path)
    }

    pub fn acrcreds_log(&self) -> PathBuf {
        self.file("acrcred.log")
    }

    pub fn emulators_log(&self) -> PathBuf {
        self.file("azure.log")
    }

    /// The last lines of acrcred's log, if it has begun one.
    pub fn end_of_acrcreds_log(&self) -> String {
        let log = fs::read_to_string(self.acrcreds_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// A folder `bin` with links to programs, for the user's `PATH`.
    pub fn link(&self, programs: &[&Path]) -> Result<PathBuf> {
        let bin = self.folder("bin")?;
        for program in programs {
            symlink(
                program,
                bin.join(program.file_name().context("a program's name")?),
            )?;
        }
        Ok(bin)
    }

    /// Removes it, unless the user wants to keep it.
    pub fn close(self, story: &Story) {
        let path = self.path().to_owned();
        if self.keep {
            story.says(&format!("{} is left for you to look at.", path.display()));
        } else if let Err(error) = self.dir.close() {
            story.says(&format!("{} could not be removed: {error}", path.display()));
        }
    }

    /// The emulator runs in this process; it logs one line a request, never a token.
    fn log_the_emulator(&self) -> Result<()> {
        let log = File::create(self.emulators_log())?;
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::INFO)
            .with_ansi(false)
            .with_writer(Mutex::new(log));
        subscriber.try_init().map_err(anyhow::Error::from_boxed)
    }
}

/// Writes a file for its owner alone, in one step, as the kubelet does: a reader sees the old or the new.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(content)?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}
