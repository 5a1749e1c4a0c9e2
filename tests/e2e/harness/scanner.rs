//! Finds tokens where they must not be, also in disguise.

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// As much of a signature as may not show up anywhere: 96 bits.
const WINDOW: usize = 16;

/// Every window of every token's signature, in every form that a careless program would write.
pub struct Scanner {
    windows: HashMap<Vec<u8>, Sighting>,
}

/// What was seen. Says which token without telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its place in the list of tokens.
    pub token: usize,
    /// How it was written.
    pub form: &'static str,
}

impl Scanner {
    /// For these JWTs. Their other two parts are not secret: names, times and ids.
    pub fn new<T: AsRef<str>>(tokens: &[T]) -> Self {
        let mut windows = HashMap::new();
        for (token, text) in tokens.iter().enumerate() {
            let signature = text.as_ref().rsplit('.').next().unwrap_or_default().trim();
            assert!(
                signature.len() >= 64,
                "token {token} has no signature to look for"
            );
            for (form, written) in forms(signature) {
                for window in written.as_bytes().windows(WINDOW) {
                    windows.insert(window.to_vec(), Sighting { token, form });
                }
            }
        }
        Self { windows }
    }

    /// What of the tokens is in `text`, once for each token and form.
    pub fn sightings(&self, text: &str) -> Vec<Sighting> {
        let mut found = Vec::new();
        for window in text.as_bytes().windows(WINDOW) {
            if let Some(sighting) = self.windows.get(window)
                && !found.contains(sighting)
            {
                found.push(*sighting);
            }
        }
        found
    }
}

/// A text in the forms that a careless program would write it.
fn forms(text: &str) -> Vec<(&'static str, String)> {
    let lower = hex(text);
    let decimal: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    vec![
        ("raw", text.to_owned()),
        // Within the base64 of a longer text, ours begins at any of three places in a group of three bytes.
        ("base64", inner_base64(text)),
        ("base64, one byte on", inner_base64(&text[1..])),
        ("base64, two bytes on", inner_base64(&text[2..])),
        ("upper-case hex", lower.to_ascii_uppercase()),
        ("hex", lower),
        ("reversed", text.chars().rev().collect()),
        ("a list of bytes", decimal.join(", ")),
    ]
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The part of a text's base64 that does not depend on what follows. Both alphabets write it alike: a
/// JWT's characters never come out as the two in which they differ.
fn inner_base64(text: &str) -> String {
    STANDARD.encode(&text[..text.len() / 3 * 3])
}

#[test]
fn the_scanner_sees_each_disguise_and_nothing_else() {
    let signature: String = ('a'..='z')
        .cycle()
        .step_by(7)
        .take(40)
        .chain('A'..='Z')
        .collect();
    let token = format!("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2kuZXhhbXBsZSJ9.{signature}");
    let other = format!(
        "eyJhbGciOiJSUzI1NiJ9.e30.{}",
        signature.to_ascii_lowercase().replace('b', "-")
    );
    let scanner = Scanner::new(&[&other, &token]);
    let log = |value: &str| {
        format!("{{\"level\":\"INFO\",\"message\":\"an answer\",\"body\":\"{value}\"}}")
    };
    let hex = hex(&token);
    let mut planted = vec![
        token.clone(),
        signature[20..36].to_owned(),
        token.chars().rev().collect(),
        hex.to_ascii_uppercase(),
        hex,
        format!("{:?}", token.as_bytes()),
        serde_json::json!({"a": token}).to_string(),
    ];
    planted.extend(
        ["", "x", "xy", "00000000-0000-0000-0000-000000000000:"]
            .map(|before| STANDARD.encode(format!("{before}{token} and more"))),
    );
    planted.push(URL_SAFE_NO_PAD.encode(&token));
    for planted in planted {
        let seen = scanner.sightings(&log(&planted));
        assert!(seen.iter().any(|sighting| sighting.token == 1), "{planted}");
        assert!(
            seen.iter().all(|sighting| sighting.token == 1),
            "{planted} is no other token"
        );
    }
    let chopped: Vec<&str> = signature
        .as_bytes()
        .chunks(15)
        .filter_map(|part| str::from_utf8(part).ok())
        .collect();
    for fine in [token.rsplit_once('.').unwrap().0, &chopped.join("_")] {
        assert_eq!(scanner.sightings(&log(fine)), [], "{fine}");
    }
}
