//! How the modules named `fuzz` run, and the odd inputs that they share.
//!
//! A plain `cargo test` tries the same inputs each time; where `PROPTEST_CASES` asks for a number, they are new.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value};

/// For a test of so many inputs.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: if asked { config.cases } else { cases },
        rng_seed: if asked {
            config.rng_seed
        } else {
            RngSeed::Fixed(0xacc)
        },
        // A failure is printed; a file of them would be one more thing to keep.
        failure_persistence: None,
        ..config
    }
}

/// Any JSON document, not deep.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((text(), inner), 0..5).prop_map(|fields| Value::from(Map::from_iter(fields))),
        ]
    })
}

/// Any text, also such as parsers trip over.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        "[\\x00-\\x20\"'\\\\.:/@%{}\\[\\],=-]{0,12}",
        Just(String::new()),
    ]
}

/// What may stand where a JSON document has a number, as text: `1e400` fits into no number.
pub(crate) fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        (0..4_000_000_000_i64).prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| Value::from(number).to_string()),
        "-?[0-9]{1,30}(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        json().prop_map(|json| json.to_string()),
    ]
}

/// Something like a JWT with these claims, which need not be JSON.
pub(crate) fn jwt() -> impl Strategy<Value = String> {
    let claims = prop_oneof![
        4 => (number(), number()).prop_map(|(exp, iat)| format!(r#"{{"exp":{exp},"iat":{iat}}}"#)),
        2 => number().prop_map(|exp| format!(r#"{{"exp":{exp},"exp":{exp}}}"#)),
        1 => json().prop_map(|json| json.to_string()),
        1 => text(),
    ];
    (claims, "[A-Za-z0-9_-]{0,8}", any::<bool>()).prop_map(|(claims, part, padded)| {
        let engine = if padded { URL_SAFE } else { URL_SAFE_NO_PAD };
        format!("{part}.{}.{part}", engine.encode(claims))
    })
}

/// A JWT with these claims, whose signature nobody checks.
pub(crate) fn signed(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// Any time that the calendar knows.
pub(crate) fn time() -> impl Strategy<Value = Timestamp> {
    let any_time = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let ours = 1_700_000_000..2_000_000_000_i64;
    prop_oneof![any_time, ours.prop_map(|second| second)]
        .prop_map(|second| Timestamp::from_second(second).expect("within the calendar"))
}
