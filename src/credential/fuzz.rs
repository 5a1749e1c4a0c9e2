//! Hostile inputs for what this module reads: hosts, claims, ids, payloads.

use std::cell::Cell;

use jiff::SignedDuration;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use strum::IntoEnumIterator as _;

use super::*;
use crate::fuzzing::{config, json, jwt, text, time};

/// Each suffix that is enabled here, and where its identities sign in. The last is a custom cloud's.
const SUFFIXES: [(&str, &str); 4] = [
    (".azurecr.io", "login.microsoftonline.com"),
    (".azurecr.us", "login.microsoftonline.us"),
    (".azurecr.cn", "login.chinacloudapi.cn"),
    (".azurecr.pr", "login.cloud.private"),
];

fn clouds() -> Clouds {
    let custom = EnabledCloud {
        suffix: "azurecr.pr".parse().unwrap(),
        authority: Authority::custom("https://login.cloud.private/").unwrap(),
        audience: Audience::default(),
    };
    let built_in = Cloud::iter().map(EnabledCloud::from);
    built_in.chain([custom]).collect()
}

/// Every host that is allowed, written down a second time: one label, perhaps `.REGION.geo`, and a
/// suffix of Microsoft's or the custom one; all are RFC 1123 labels in lower case, and none is punycode.
fn is_login_server(host: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    let is_label = |label: &&str| {
        let bytes = label.as_bytes();
        bytes.len() < 64
            && alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|b| alphanumeric(Some(b)) || *b == b'-')
    };
    let mut labels: Vec<&str> = host.split('.').rev().collect();
    if host.len() > 253 || !labels.iter().all(is_label) || labels.len() < 3 {
        return false;
    }
    let name = labels.split_off(2);
    let suffix = ["io", "us", "cn", "pr"].contains(&labels[0]) && labels[1] == "azurecr";
    let shape = name.len() == 1 || (name.len() == 3 && name[0] == "geo");
    suffix && shape && name.iter().all(|label| !label.starts_with("xn--"))
}

fn good_host() -> impl Strategy<Value = String> {
    let label = || "[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?";
    let region = prop_oneof![Just(String::new()), "\\.[a-z0-9]{1,12}\\.geo"];
    let suffix = select(SUFFIXES.map(|(suffix, _)| suffix).to_vec());
    (label(), region, suffix).prop_map(|(name, region, suffix)| name + &region + suffix)
}

const INSERTIONS: [&str; 50] = [
    ".",
    "-",
    "_",
    "/",
    "\\",
    ":",
    ":443",
    "@",
    "?",
    "#",
    "%",
    "%2e",
    "%00",
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u{3002}",
    "\u{ff0e}",
    "\u{2024}",
    "\u{430}",
    "\u{131}",
    "\u{212a}",
    "\u{ad}",
    "\u{200b}",
    "\u{202e}",
    "\u{feff}",
    "A",
    "xn--",
    "geo",
    ".geo",
    "data.",
    "azurecr.io",
    ".azurecr.io",
    ".azurecr.com",
    ".azurecr.pr",
    "ivate",
    "evil.example",
    ".evil.example",
    "@evil.example",
    "https://",
    "//",
    "user:pw@",
    "[::1]",
    "127.0.0.1",
    "..",
    ";",
    "'",
    "\"",
];

/// A good host, and what an attacker may make of it.
fn hostile_host() -> impl Strategy<Value = String> {
    let change = (
        0..6_u8,
        any::<Index>(),
        any::<Index>(),
        select(INSERTIONS.to_vec()),
    );
    (good_host(), vec(change, 0..4)).prop_map(|(host, changes)| {
        let mut letters: Vec<char> = host.chars().collect();
        for (how, one, other, text) in changes {
            let (one, other) = (one.index(letters.len() + 1), other.index(letters.len() + 1));
            let (from, to) = (one.min(other), one.max(other));
            match how {
                0 | 1 => drop(letters.splice(from..from, text.chars())),
                2 => drop(letters.drain(from..to.min(from + 3))),
                3 => letters.extend(text.chars()),
                4 => drop(letters.splice(0..0, text.chars())),
                _ => {
                    let again: Vec<char> =
                        letters[from..to].iter().copied().cycle().take(80).collect();
                    drop(letters.splice(from..from, again));
                }
            }
        }
        letters.into_iter().collect()
    })
}

#[test]
fn hosts_are_judged_as_the_grammar_says_and_go_where_they_say() {
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let clouds = clouds();
    let judge = |host: String| {
        let parsed = clouds.login_server(&host);
        prop_assert_eq!(parsed.is_ok(), is_login_server(&host), "{:?}", host);
        let Ok(server) = parsed else {
            refused.set(refused.get() + 1);
            return Ok(());
        };
        taken.set(taken.get() + 1);
        prop_assert_eq!(server.as_str(), &host);
        let again = clouds.login_server(&server.to_string());
        prop_assert_eq!(again.as_ref(), Ok(&server));
        let suffix = SUFFIXES.iter().find(|(suffix, _)| host.ends_with(suffix));
        prop_assert_eq!(suffix.map(|(_, at)| *at), Some(server.authority().host()));
        // The client that sends the token reads the same host out of the URL.
        let url = reqwest::Url::parse(&format!("https://{server}/oauth2/exchange")).unwrap();
        prop_assert_eq!(url.host_str(), Some(host.as_str()));
        prop_assert_eq!(
            (url.port(), url.username(), url.path()),
            (None, "", "/oauth2/exchange")
        );
        Ok(())
    };
    let mut runner = TestRunner::new(config(20_000));
    runner.run(&hostile_host(), judge).unwrap();
    runner.run(&text(), judge).unwrap();
    assert!(
        refused.get() >= 10_000 && taken.get() >= 100,
        "{} refused, {} taken",
        refused.get(),
        taken.get()
    );
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn claims_never_make_a_life_longer_than_a_day(jwt in jwt(), now in time()) {
        let Some(claims) = Claims::parse(&jwt) else { return Ok(()) };
        let issued_at = claims.issued_at.unwrap_or(now);
        let recorded = Lifetime::recorded(issued_at, claims.expires_at, MAX_LIFE, now);
        prop_assert!(recorded.end <= saturating_add(now, MAX_LIFE) && recorded.end <= claims.expires_at);
        for lifetime in [Lifetime::received(claims, now)] {
            prop_assert!(lifetime.length() <= MAX_LIFE, "{claims:?} {lifetime:?}");
            prop_assert!(lifetime.end <= saturating_add(now, MAX_LIFE));
            for fraction in [-1.0, 0.1, 0.5, 2.0, f64::INFINITY] {
                let part = lifetime.part(fraction);
                prop_assert!(SignedDuration::ZERO <= part && part <= MAX_LIFE);
            }
        }
        prop_assert!(claims.expires_at.as_second() >= 0);
    }

    #[test]
    fn what_is_no_jwt_is_refused_in_peace(text in text(), odd in vec(any::<u8>(), 0..60)) {
        for text in [text, String::from_utf8_lossy(&odd).into_owned()] {
            let dots = text.bytes().filter(|b| *b == b'.').count();
            prop_assert!(dots == 2 || Claims::parse(&text).is_none());
            let federation = AssertionClaims::of(&Token::new(text));
            prop_assert!(dots == 2 || federation.is_none());
        }
    }

    #[test]
    fn an_assertion_tells_its_own_claims(iss in text(), sub in text(), aud in json(), more in json()) {
        let claims = serde_json::json!({"iss": iss, "sub": sub, "aud": aud, "kubernetes.io": more});
        let token = crate::fuzzing::signed(&claims.to_string());
        if let Some(federation) = AssertionClaims::of(&Token::new(token)) {
            let audience = Some(federation.subject.audience.as_str());
            prop_assert_eq!((federation.issuer, federation.subject.name), (iss, sub));
            let is_only = aud.as_array().is_some_and(|all| all.len() == 1);
            prop_assert!(aud.as_str() == audience || (is_only && aud[0].as_str() == audience));
        }
    }

    #[test]
    fn ids_stay_one_segment_of_a_path(text in prop_oneof![
        text(),
        "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{11,13}",
        "[a-zA-Z0-9.%/?#-]{1,30}",
    ]) {
        let ids = [
            text.parse::<TenantId>().map(|id| id.as_str().to_owned()),
            text.parse::<ClientId>().map(|id| id.as_str().to_owned()),
        ];
        for id in ids.into_iter().flatten() {
            prop_assert!(id.eq_ignore_ascii_case(&text));
            let url = reqwest::Url::parse(&format!("https://login.example/{id}/token")).unwrap();
            prop_assert_eq!(url.path(), format!("/{id}/token"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }

    #[test]
    fn only_listed_authorities_are_taken(host in hostile_host(), text in text()) {
        for url in [format!("https://{host}"), text.clone(), format!("https://login.microsoftonline.com{text}")] {
            if let Ok((cloud, authority)) = Authority::parse(&url) {
                prop_assert_eq!(authority, cloud.default_authority(), "{}", url);
            }
        }
    }

    #[test]
    fn issued_for_is_read_back_as_written_and_nothing_else_is(text in text()) {
        if let Some(issued_for) = IssuedFor::parse(&text) {
            prop_assert_eq!(issued_for.to_string(), text);
        }
    }

    #[test]
    fn payloads_are_one_line_with_every_entry(tokens in btree_map(text(), text(), 0..6)) {
        let expected = tokens.clone();
        let tokens = tokens.into_iter().map(|(host, token)| (host, Token::new(token))).collect();
        let payload = DockerConfig { tokens }.encode();
        prop_assert!(!payload.contains(&b'\n'));
        let read: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        for (host, token) in &expected {
            prop_assert_eq!(read["auths"][host]["password"].as_str(), Some(token.as_str()));
        }
        prop_assert_eq!(read["auths"].as_object().map(serde_json::Map::len), Some(expected.len()));
    }
}
