//! Tells whoever waits that a build is alive.

use std::{
    io::{IsTerminal, Write as _, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::Tool;

/// A spinner on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    tool: Tool,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn start(tool: Tool) -> Self {
        let text = format!(
            "building {tool} {} (first use, then cached)",
            tool.version()
        );
        let spinner = stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(text.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                spinner.set_style(style);
            }
            spinner
        });
        if spinner.is_none() {
            say(&text);
        }
        Self {
            tool,
            started: Instant::now(),
            spinner,
        }
    }

    /// How often to call [`Progress::tick`].
    pub(super) fn interval(&self) -> Duration {
        if self.spinner.is_some() {
            Duration::from_millis(120)
        } else {
            Duration::from_secs(15)
        }
    }

    pub(super) fn tick(&self) {
        match &self.spinner {
            Some(spinner) => spinner.tick(),
            None => say(&format!(
                "still building {} ({} s)",
                self.tool,
                self.started.elapsed().as_secs()
            )),
        }
    }

    pub(super) fn end(&self, success: bool) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let outcome = if success { "built" } else { "could not build" };
        say(&format!(
            "{outcome} {} in {} s",
            self.tool,
            self.started.elapsed().as_secs()
        ));
    }
}

/// A line on the real stderr: the test harness captures `eprintln!`, and somebody may wait for ten minutes.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
