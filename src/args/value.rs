//! Values of single flags: from what an operator types to what the program uses.

use std::error::Error;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use jiff::SignedDuration;

use crate::credential::names::{is_label, is_subdomain};
use crate::credential::{Audience, Cloud};
use crate::process::{LogFormat, MAX_LEASE_DURATION};

/// What a text says; `None` where it is blank. By this name, clap takes it for a value like any other.
pub(super) type Setting<T> = Option<T>;

/// A parser of a single value. Set to nothing counts as not set, as templates of deployments produce it: then
/// the value is the flag's default.
pub(super) fn or_default<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, &'static str>,
) -> impl TypedValueParser<Value = T> {
    OrDefault.try_map(move |text| parse(&text))
}

/// A parser of a value that has no default, or of an entry of a list, where blank ones are dropped.
pub(super) fn optional<T: Clone + Send + Sync + 'static, E>(
    parse: fn(&str) -> Result<T, E>,
) -> impl TypedValueParser<Value = Setting<T>>
where
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    StringValueParser::new().try_map(move |text| match text.trim() {
        "" => Ok(None),
        text => parse(text).map(Some),
    })
}

/// A flag's text without blanks around it, or its default where nothing is left.
#[derive(Clone)]
struct OrDefault;

impl TypedValueParser for OrDefault {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        flag: Option<&Arg>,
        text: &OsStr,
    ) -> Result<String, clap::Error> {
        let default = flag.and_then(|flag| flag.get_default_values().first());
        let text = StringValueParser::new().parse_ref(command, flag, text)?;
        Ok(match (text.trim(), default) {
            ("", Some(default)) => default.to_string_lossy().into_owned(),
            (text, _) => text.to_owned(),
        })
    }
}

/// A duration with units, or `0`; never negative.
fn duration(text: &str) -> Option<SignedDuration> {
    if text == "0" {
        return Some(SignedDuration::ZERO);
    }
    let duration: SignedDuration = text.parse().ok()?;
    (!duration.is_negative()).then_some(duration)
}

/// Whole seconds, as the API server takes and states them.
fn whole_seconds(text: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
    let duration = Duration::try_from(duration(text)?).ok()?;
    (duration.subsec_nanos() == 0 && range.contains(&duration)).then_some(duration)
}

/// Whether `text` has only ASCII letters, digits and `others`.
fn is_plain(text: &str, others: &[u8]) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

fn begins_alphanumeric(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

pub(super) fn refresh_fraction(text: &str) -> Result<f64, &'static str> {
    text.parse()
        .ok()
        .filter(|fraction| (0.1..=0.9).contains(fraction))
        .ok_or("set a number from 0.1 to 0.9")
}

pub(super) fn token_cache_max_life(text: &str) -> Result<SignedDuration, &'static str> {
    duration(text).ok_or("set a duration such as 10m or 24h, or 0 to switch the cache off")
}

pub(super) fn resync_interval(text: &str) -> Result<SignedDuration, &'static str> {
    duration(text)
        .filter(|interval| *interval >= SignedDuration::from_secs(10))
        .ok_or("set a duration of at least 10s, such as 10m")
}

/// Longer, and load balancers on the way may drop the silent connection (240 s at Azure's).
const MAX_WATCH_TIMEOUT: Duration = Duration::from_secs(200);

pub(super) fn watch_timeout(text: &str) -> Result<Duration, &'static str> {
    whole_seconds(text, Duration::from_secs(1)..=MAX_WATCH_TIMEOUT)
        .ok_or("set a duration in whole seconds from 1s to 200s")
}

/// With less, a slow answer would cost the lease.
pub(super) fn lease_duration(text: &str) -> Result<Duration, &'static str> {
    whole_seconds(text, Duration::from_secs(3)..=MAX_LEASE_DURATION)
        .ok_or("set a duration in whole seconds from 3s to 10m")
}

/// A DNS subdomain (RFC 1123), as names of most objects are.
pub(super) fn object_name(text: &str) -> Result<String, &'static str> {
    let name = is_subdomain(text).then(|| text.to_owned());
    name.ok_or("set a name of lower-case letters, digits, dashes and dots")
}

pub(super) fn audience(text: &str) -> Result<Audience, &'static str> {
    let name = ["https://", "api://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    name.filter(|name| begins_alphanumeric(name) && is_plain(name, b"-._/:"))
        .map(|_| Audience::new(text))
        .ok_or("set the URI of an application, such as https://containerregistry.azure.net or api://NAME")
}

/// The audience of an assertion. One that an API server accepts would make of each assertion a key to the
/// cluster, so what looks like one is refused.
pub(super) fn impersonation_audience(text: &str) -> Result<String, &'static str> {
    const LONGEST: usize = 600;
    let host = text.strip_prefix("https://").unwrap_or(text);
    if text.len() > LONGEST || !is_plain(text, b"-._~/:") {
        Err("set the audience of federated credentials, such as api://AzureCRTokenExchange")
    } else if host.starts_with("kubernetes") || host == "api" {
        Err(
            "that is the audience of an API server; set one that only Microsoft Entra accepts, such as api://AzureCRTokenExchange",
        )
    } else {
        Ok(text.to_owned())
    }
}

/// A prefix of label and annotation keys. What covers our own keys is refused.
pub(super) fn metadata_prefix(text: &str) -> Result<String, &'static str> {
    const OWN: &str = "acrcred.dev/";
    const LONGEST_KEY: usize = 253 + 1 + 63;
    let is_key = text.len() <= LONGEST_KEY
        && text.matches('/').count() <= 1
        && begins_alphanumeric(text)
        && is_plain(text, b"-._/");
    if !is_key {
        Err("set the beginning of a label or annotation key, such as team.example.com/")
    } else if OWN.starts_with(text) || text.starts_with(OWN) {
        Err("keys under acrcred.dev/ are not for users; set a longer or another prefix")
    } else {
        Ok(text.to_owned())
    }
}

/// A namespace: a DNS label (RFC 1123).
pub(super) fn namespace(text: &str) -> Result<String, &'static str> {
    let name = is_label(text).then(|| text.to_owned());
    name.ok_or("set the names of namespaces, without patterns")
}

/// A label selector. Only its characters are checked: the API server knows the grammar.
pub(super) fn selector(text: &str) -> Result<String, &'static str> {
    let selector = is_plain(text, b"-._/=!,() ").then(|| text.to_owned());
    selector.ok_or("set a label selector as kubectl takes it, such as shard=a,tier!=test")
}

pub(super) fn cloud(text: &str) -> Result<Cloud, &'static str> {
    text.parse()
        .map_err(|_| "set AzurePublicCloud, AzureUSGovernmentCloud or AzureChinaCloud")
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "set ADDRESS:PORT, such as 0.0.0.0:8080 or [::]:8080")
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    text.parse().map_err(|_| "set text or json")
}

pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "set true or false")
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{config, text};

    proptest! {
        #![proptest_config(config(4_000))]

        #[test]
        fn a_rule_has_two_halves_and_no_more(text in prop_oneof![text(), "[a-z*./-]{0,12}/[a-z*./A-Z -]{0,12}"]) {
            let well_formed = text.split('/').count() == 2
                && text.split('/').all(|half| !half.is_empty())
                && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '*' | '/'));
            prop_assert_eq!(text.parse::<crate::plan::PolicyRule>().is_ok(), well_formed);
        }

        #[test]
        fn no_value_makes_a_flag_panic_or_leave_its_bounds(text in prop_oneof![
            text(),
            "-?[0-9]{1,25}(\\.[0-9]{1,12})?([smhdwy]|ms|ns|m[0-9]{1,3}s)?",
            "(inf|-inf|nan|1e[0-9]{1,3}|P[0-9]{1,9}[YMD]|PT-?[0-9]{1,20}S)",
        ]) {
            let fraction = refresh_fraction(&text);
            prop_assert!(fraction.is_err() || fraction.is_ok_and(|f| (0.1..=0.9).contains(&f)));
            for duration in [token_cache_max_life(&text), resync_interval(&text)].into_iter().flatten() {
                prop_assert!(!duration.is_negative());
            }
            let timeout = watch_timeout(&text);
            prop_assert!(timeout.is_err() || timeout.is_ok_and(|t| t <= MAX_WATCH_TIMEOUT && !t.is_zero()));
            let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            prop_assert!(is_plain(&text) || (audience(&text).is_err() && selector(&text).is_err()));
            prop_assert!(is_plain(&text) || (namespace(&text).is_err() && metadata_prefix(&text).is_err()));
            let _ = (listen_address(&text), boolean(&text));
        }
    }
}
