//! What the demo prints: numbered headlines, commands, their output, and a mark for what was proved.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Stdout, Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::stop::Signal;

/// The demo as it is told on stdout.
pub struct Story {
    out: Stdout,
    /// Whether stdout is a terminal, which gets colours and lines that are drawn again.
    ansi: bool,
    number: usize,
    title: String,
    began: Instant,
    marked: Instant,
}

/// ANSI codes of the few styles that there are.
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

impl Story {
    pub fn begin() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let capable = std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        let story = Self {
            out: stdout(),
            ansi: stdout().is_terminal() && wanted && capable,
            number: 0,
            title: String::new(),
            began: Instant::now(),
            marked: Instant::now(),
        };
        let title = story.paint(
            Style::Bold,
            "acrcred: pull Secrets for Azure Container Registry",
        );
        story.line(&format!("{title}, without a stored password"));
        story
    }

    /// A new step.
    pub fn step(&mut self, title: &str) {
        self.number += 1;
        title.clone_into(&mut self.title);
        self.marked = Instant::now();
        let headline = self.paint(Style::Bold, &format!("{}  {title}", self.number));
        self.line(&format!("\n{headline}"));
    }

    /// A sentence that explains.
    pub fn says(&self, text: &str) {
        for text in text.lines() {
            self.line(&format!("   {text}"));
        }
    }

    /// A command as one would type it.
    pub fn command(&self, text: &str) {
        self.line(&format!(
            "   {}",
            self.paint(Style::Dim, &format!("$ {text}"))
        ));
    }

    /// What a command printed.
    pub fn output(&self, text: &str) {
        for text in text.lines().filter(|text| !text.trim().is_empty()) {
            self.line(&format!("     {text}"));
        }
    }

    /// What is now proved, with the time it took since the mark before.
    pub fn proved(&mut self, sentence: &str) {
        let took = seconds(self.marked.elapsed());
        self.marked = Instant::now();
        let (mark, took) = (self.paint(Style::Green, "✓"), self.paint(Style::Dim, &took));
        self.line(&format!("   {mark} {sentence}  {took}"));
    }

    /// A line that the next one replaces; nothing where lines cannot be replaced.
    pub fn meanwhile(&self, text: &str) {
        if self.ansi {
            self.say(&format!("\r   {text}\u{1b}[K"));
        }
    }

    /// Ends a series of [`Story::meanwhile`].
    pub fn meanwhile_over(&self) {
        if self.ansi {
            self.say("\r\u{1b}[K");
        }
    }

    /// The good end.
    pub fn told(&self) -> ExitCode {
        let mark = self.paint(Style::Green, "✓");
        self.line(&format!(
            "\n{mark} All steps were proved, in {}.",
            seconds(self.began.elapsed())
        ));
        ExitCode::SUCCESS
    }

    /// The bad end: what was not as it must be.
    pub fn failed(&self, error: &anyhow::Error, log: &str) -> ExitCode {
        self.meanwhile_over();
        let mut text = self.paint(Style::Red, "✗");
        let _ = match self.number {
            0 => write!(text, " The demo could not begin: {error:#}"),
            number => write!(text, " Step {number} ({}) failed: {error:#}", self.title),
        };
        self.line(&format!("\n{text}"));
        if !log.is_empty() {
            self.line("\n   The end of acrcred's log:");
            self.output(log);
        }
        ExitCode::FAILURE
    }

    /// The end that somebody else wanted.
    pub fn interrupted(&self, signal: Signal) -> ExitCode {
        self.meanwhile_over();
        let mark = self.paint(Style::Red, "✗");
        self.line(&format!(
            "\n{mark} {} in step {}; everything was ended.",
            signal.name(),
            self.number
        ));
        signal.exit_code()
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.ansi {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Green => 32,
            Style::Red => 31,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    fn line(&self, text: &str) {
        self.say(&format!("{text}\n"));
    }

    /// Not print: whoever read stdout may be gone, and the demo has to clean up nevertheless.
    fn say(&self, text: &str) {
        let mut out = self.out.lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
