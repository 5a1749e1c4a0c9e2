//! Runs commands before the reader's eyes: the line as one would type it, then what it printed.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

use crate::story::Story;

/// Longer than any command here takes.
const LIMIT: Duration = Duration::from_mins(1);

/// A command with the line that shows it.
pub struct Line {
    command: Command,
    shown: String,
}

impl Line {
    /// `NAME ARGUMENTS`; `command` knows the program and its environment.
    pub fn new(name: &str, mut command: Command, arguments: &[&str]) -> Self {
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        Self {
            command,
            shown: format!("{name} {}", words.join(" ")),
        }
    }

    /// Sets a variable that the reader should see.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        self.shown = format!("{variable}={} {}", quoted(value), self.shown);
        self
    }

    /// Where it is typed.
    pub fn at(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it; it has to succeed. Returns what it printed on stdout.
    pub async fn run(self, story: &Story) -> Result<String> {
        let shown = self.shown.clone();
        let output = self.complete(story).await?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors
                .trim()
                .lines()
                .last()
                .unwrap_or("it does not say why");
            bail!("`{shown}` failed: {last}");
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Runs it; it ought to fail. Returns what it printed on stderr, or nothing if it succeeded.
    pub async fn refusal(self, story: &Story) -> Result<Option<String>> {
        let output = self.complete(story).await?;
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((!output.status.success()).then_some(errors))
    }

    async fn complete(mut self, story: &Story) -> Result<Output> {
        story.command(&self.shown);
        let output = timeout(LIMIT, self.command.output()).await;
        let output = output.with_context(|| format!("`{}` hangs", self.shown))?;
        let output = output.with_context(|| format!("`{}` cannot be run", self.shown))?;
        story.output(&String::from_utf8_lossy(&output.stderr));
        story.output(&String::from_utf8_lossy(&output.stdout));
        Ok(output)
    }
}

/// A word as a shell needs it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
