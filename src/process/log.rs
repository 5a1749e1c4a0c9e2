//! Logs on stderr, from which no token, upstream text or forged line can come out.
//!
//! - Only targets of this crate follow the level that an operator sets. Everything else is capped,
//!   whatever is asked for: at `debug`, HTTP clients log headers, and at `warn` `kube_client::client`
//!   logs bodies that it cannot read, which can be whole Secrets.
//! - Records of the `log` crate are not collected at all.
//! - Each event is one line: control characters in values come out escaped.
//! - A panic is an event too, with its place, and without a message that was formatted at run time.

use std::any::Any;
use std::io::{self, Write};
use std::panic;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::one_line::OneLine;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which of this crate's events are logged: `info`, or `info,acrcred::azure=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// Indicates that a text is no log filter.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogFilterError {
    /// Not a level.
    #[error(
        "use off, error, warn, info, debug or trace, or a list such as info,acrcred::azure=debug"
    )]
    Level,
    /// A target of another crate, whose lines could hold secrets.
    #[error("only targets of acrcred can be set, such as info,acrcred::azure=debug")]
    ForeignTarget,
}

const OWN: &str = "acrcred";

/// Crates that hold bodies of Entra, of registries or of the API server in their hands: silent.
const SILENT: [&str; 3] = ["kube_client::client", "azure_", "typespec"];

/// Starts logging to stderr for the whole process. No colours: they would have to be told from
/// escape sequences in values.
pub fn init(format: LogFormat, filter: LogFilter) -> Result<(), SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(format, filter, io::stderr))?;
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string);
        tracing::error!(location, message = panic_message(info.payload()));
    }));
    Ok(())
}

/// Literal messages of ours and of libraries; a formatted one can hold any value.
fn panic_message(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("a task panicked; its message is withheld")
}

fn subscriber<W: Write + 'static>(
    format: LogFormat,
    filter: LogFilter,
    to: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Subscriber + Send + Sync> {
    let registry = tracing_subscriber::registry().with(filter.0);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || OneLine(to()));
    match format {
        LogFormat::Text => Box::new(registry.with(lines)),
        LogFormat::Json => {
            let json = lines.json().flatten_event(true).with_span_list(false);
            Box::new(registry.with(json))
        }
    }
}

// === impl LogFilter ===

impl Default for LogFilter {
    fn default() -> Self {
        let targets = Targets::new()
            .with_default(LevelFilter::ERROR)
            .with_targets(SILENT.map(|target| (target, LevelFilter::OFF)));
        Self(targets.with_target(OWN, LevelFilter::INFO))
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let mut filter = Self::default();
        for directive in text.split(',').map(str::trim) {
            let (target, level) = directive.split_once('=').unwrap_or((OWN, directive));
            if !is_own(target) {
                return Err(LogFilterError::ForeignTarget);
            }
            // `LevelFilter` itself takes the empty text for `error`.
            let level = Some(level).filter(|level| !level.is_empty());
            let level = level.and_then(|level| level.parse().ok());
            let level: LevelFilter = level.ok_or(LogFilterError::Level)?;
            filter.0 = filter.0.with_target(target, level);
        }
        Ok(filter)
    }
}

fn is_own(target: &str) -> bool {
    target
        .strip_prefix(OWN)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let filter = filter.parse().unwrap();
        let subscriber = subscriber(format, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_level_raises_what_other_crates_log() {
        for filter in [
            "trace",
            "TRACE",
            "info,acrcred=trace",
            "trace,acrcred::azure=trace",
        ] {
            let targets = filter.parse::<LogFilter>().unwrap().0;
            for target in [
                "kube_client",
                "kube_runtime::watcher",
                "hyper::proto",
                "hyper_util::client",
                "reqwest",
                "rustls::client",
                "tower::buffer",
                "h2::codec",
                "axum::rejection",
                "tokio",
                "log",
                "anything",
            ] {
                assert!(
                    !targets.would_enable(target, &tracing::Level::WARN),
                    "{filter} {target}"
                );
                assert!(
                    targets.would_enable(target, &tracing::Level::ERROR),
                    "{filter} {target}"
                );
            }
            for target in [
                "kube_client::client",
                "kube_client::client::builder",
                "azure_core::http",
                "azure_identity",
                "typespec_client_core::http",
                "typespec",
            ] {
                assert!(
                    !targets.would_enable(target, &tracing::Level::ERROR),
                    "{filter} {target}"
                );
            }
            assert!(
                targets.would_enable("acrcred::azure", &tracing::Level::TRACE),
                "{filter}"
            );
        }
    }

    #[test]
    fn a_body_that_kube_cannot_read_is_not_logged() {
        let log = logged(LogFormat::Json, "trace", || {
            tracing::warn!(target: "kube_client::client", "{}", r#"{"data":{"x":"secret"}}"#);
            tracing::warn!(target: "hyper::proto", "secret");
            tracing::debug!(target: "acrcred::azure", "ours");
        });
        assert!(!log.contains("secret"), "{log}");
        assert!(log.contains("ours"), "{log}");
    }

    #[test]
    fn only_levels_and_own_targets_are_taken() {
        for text in [
            "info",
            "OFF",
            "warn,acrcred::azure=debug",
            "acrcred=trace",
            " info , acrcred::plan=warn ",
        ] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in [
            "",
            "loud",
            "info,",
            ",",
            "acrcred=",
            "acrcred=loud",
            "acrcred::azure",
        ] {
            assert_eq!(
                text.parse::<LogFilter>(),
                Err(LogFilterError::Level),
                "{text}"
            );
        }
        for text in [
            "kube=debug",
            "info,kube_client::client=trace",
            "=trace",
            "acrcredible=trace",
            "[span]=info",
        ] {
            assert_eq!(
                text.parse::<LogFilter>(),
                Err(LogFilterError::ForeignTarget),
                "{text}"
            );
        }
    }

    #[test]
    fn values_cannot_forge_a_line_or_steer_a_terminal() {
        let evil = "a\nERROR forged\r\u{1b}[2J\u{9b}31m\u{7f}\u{0}\u{202e}\u{2028}z";
        let error = io::Error::other(evil);
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format, "info", || {
                let span = tracing::info_span!("work", object = %evil);
                let _entered = span.enter();
                tracing::info!(shown = %evil, quoted = ?evil, text = evil, "message {evil}");
                tracing::info!(error = &error as &dyn std::error::Error);
            });
            assert_eq!(log.lines().count(), 2, "{log}");
            assert!(log.ends_with('\n'));
            let odd = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c);
            assert_eq!(log.chars().find(|c| odd(*c)), None, "{log:?}");
        }
    }

    #[test]
    fn a_json_event_is_an_object_that_says_what_was_said() {
        let said = "a\nb\u{9b}\u{202e}\t\"\\";
        let log = logged(LogFormat::Json, "info", || {
            let _entered = tracing::info_span!("reconcile", object = "acr").entered();
            tracing::info!(server = %said, attempts = 3, "refreshed");
        });
        let event: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(event["server"], said);
        assert_eq!(event["message"], "refreshed");
        assert_eq!(event["attempts"], 3);
        assert_eq!(event["span"]["name"], "reconcile", "{event}");
        assert_eq!(event["span"]["object"], "acr", "{event}");
    }

    #[test]
    fn a_formatted_panic_message_is_withheld() {
        let formatted = panic::catch_unwind(|| panic!("{}", String::from("secret"))).unwrap_err();
        assert!(!panic_message(&*formatted).contains("secret"));
        let literal = panic::catch_unwind(|| panic!("a literal")).unwrap_err();
        assert_eq!(panic_message(&*literal), "a literal");
    }
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{config, text};

    proptest! {
        #![proptest_config(config(2_000))]

        #[test]
        fn no_filter_opens_another_crates_log(text in prop_oneof![
            text(),
            "(acrcred|acrcred::a|kube|kube_client::client|hyper|\\[s\\])?(=|,|::|)(trace|TRACE|5|off|)(,[a-z_:]{0,9}=trace)?",
        ]) {
            let Ok(filter) = text.parse::<LogFilter>() else { return Ok(()) };
            let targets = filter.0;
            for target in ["kube", "hyper::proto", "reqwest",  "a", ""] {
                prop_assert!(!targets.would_enable(target, &tracing::Level::WARN), "{}", target);
            }
            for target in ["kube_client::client", "azure_core::http", "typespec_client_core"] {
                prop_assert!(!targets.would_enable(target, &tracing::Level::ERROR), "{}", target);
            }
        }
    }
}
