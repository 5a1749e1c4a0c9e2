//! What an image holds, taken from its Dockerfile and assembled without a container daemon.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The last stage of a Dockerfile: what the image holds.
#[derive(Debug, Default)]
pub struct Stage {
    /// Where in the first stage, and where in the image.
    pub copies: Vec<(String, String)>,
    /// Who runs it, as `UID:GID`.
    pub user: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
}

/// Instructions and their arguments, continued lines joined, comments dropped.
pub fn instructions(dockerfile: &str) -> Vec<(String, String)> {
    let lines = dockerfile.lines();
    let lines: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| {
        let (name, arguments) = line.trim().split_once(' ')?;
        Some((name.to_owned(), arguments.trim().to_owned()))
    });
    instructions.collect()
}

impl Stage {
    /// Reads the text of a Dockerfile.
    pub fn last_of(dockerfile: &str) -> Result<Self> {
        let mut stage = Self::default();
        for (instruction, arguments) in instructions(dockerfile) {
            match instruction.as_str() {
                "FROM" => stage = Self::default(),
                "COPY" => {
                    let words = arguments.split_whitespace();
                    let mut words = words.filter(|word| !word.starts_with("--"));
                    let (from, to) = (words.next().context("from")?, words.next().context("to")?);
                    stage.copies.push((from.to_owned(), to.to_owned()));
                }
                "USER" => stage.user = arguments,
                "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(&arguments)?,
                _ => {}
            }
        }
        Ok(stage)
    }

    /// Writes its files into one layer. `program` is what the first stage builds; the rest is Debian's, there and here.
    pub fn write_layer(&self, program: &Path, layer: &Path) -> Result<()> {
        ensure!(
            program.is_file(),
            "{} is missing: run `make image-program`",
            program.display()
        );
        let root = tempfile::tempdir()?;
        for (from, to) in &self.copies {
            let to = root.path().join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().context("a folder")?)?;
            let from = if from == "/out/acrcred" {
                program
            } else {
                Path::new(from)
            };
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        write_layer(root.path(), layer)
    }
}

/// Where `make image-program` puts the program, under cargo's target folder.
pub fn program(target: &Path) -> PathBuf {
    let machine = std::env::consts::ARCH;
    target.join(format!("{machine}-unknown-linux-musl/image/acrcred"))
}

/// Writes a folder's content as a layer, everything owned by root.
pub fn write_layer(root: &Path, layer: &Path) -> Result<()> {
    let status = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(layer)
        .arg("--directory")
        .arg(root)
        .arg(".")
        .status()?;
    ensure!(status.success(), "tar failed ({status})");
    Ok(())
}

/// The platform of this machine, as images name it.
pub fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}
