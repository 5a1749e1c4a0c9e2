//! Every row, and the list of codes that the rows were written after.

use std::collections::BTreeSet;

use super::*;

/// Each code with how its failure is retried: the advice of the protocol, written down apart from the table.
const ADVICE: &[(&[u32], Class)] = &[
    (
        &[
            70_021, 700_211, 700_212, 700_213, 7_002_121, 7_002_137, 7_002_104,
        ],
        Class::Propagation,
    ),
    (&[7_002_138], Class::Terminal),
    (&[700_222, 700_226, 700_227, 700_229], Class::Terminal),
    (&[700_024, 50_012, 50_013, 500_133], Class::Retryable),
    (&[700_027, 90_061], Class::Escalating),
    (&[700_016], Class::Propagation),
    (&[7_000_112, 70_001, 700_025, 7_000_215], Class::Terminal),
    (&[7_000_218, 900_144, 9_002_313], Class::Escalating),
    (&[90_002, 900_023], Class::Terminal),
    (
        &[500_011, 50_001, 650_057, 650_052, 650_054],
        Class::Terminal,
    ),
    (&[70_011, 28_002, 700_022], Class::Terminal),
    (&[50_034, 50_076, 50_079, 50_158, 53_003], Class::Terminal),
    (&[90_038, 900_382, 900_432, 900_439], Class::Terminal),
    (&[50_196, 90_055], Class::Retryable),
    (
        &[50_033, 90_006, 90_012, 90_024, 90_033, 90_090, 50_087],
        Class::Retryable,
    ),
    (&[50_000, 90_036], Class::Escalating),
];

fn codes() -> impl Iterator<Item = (u32, &'static Failure)> {
    catalogue().flat_map(|row| {
        let codes = match row.when {
            When::Codes(codes) => codes,
            _ => &[],
        };
        codes.iter().map(move |code| (*code, row))
    })
}

#[test]
fn every_code_is_retried_as_the_protocol_advises() {
    let told: BTreeSet<u32> = codes().map(|(code, _)| code).collect();
    for (codes, class) in ADVICE {
        for code in *codes {
            assert!(told.contains(code), "{code} has no row");
            let error = MintError::entra(400, &[*code], None);
            assert_eq!(error.class(), *class, "{code}");
        }
    }
}

/// The cause after this one: whoever adds one is made to add it here.
fn after(cause: Cause) -> Option<Cause> {
    Some(match cause {
        Cause::NoAssertion => Cause::NoServiceAccount,
        Cause::NoServiceAccount => Cause::ImpersonationForbidden,
        Cause::ImpersonationForbidden => Cause::OwnServiceAccount,
        Cause::OwnServiceAccount => Cause::ApiServer,
        Cause::ApiServer => Cause::ServiceAccountChanged,
        Cause::ServiceAccountChanged => Cause::NoClientId,
        Cause::NoClientId => Cause::InvalidClientId,
        Cause::InvalidClientId => Cause::NoTenantId,
        Cause::NoTenantId => Cause::InvalidTenantId,
        Cause::InvalidTenantId => Cause::AudienceNotAllowed,
        Cause::AudienceNotAllowed => Cause::Federation,
        Cause::Federation => Cause::UnknownIdentity,
        Cause::UnknownIdentity => Cause::AssertionRefused,
        Cause::AssertionRefused => Cause::SignatureRefused,
        Cause::SignatureRefused => Cause::UnknownAudience,
        Cause::UnknownAudience => Cause::EntraRefused,
        Cause::EntraRefused => Cause::RegistryRefused,
        Cause::RegistryRefused => Cause::ArmTokenRefused,
        Cause::ArmTokenRefused => Cause::RegistryForbidden,
        Cause::RegistryForbidden => Cause::RequestRefused,
        Cause::RequestRefused => Cause::InsufficientScope,
        Cause::InsufficientScope => Cause::ExcessiveScope,
        Cause::ExcessiveScope => Cause::Throttled,
        Cause::Throttled => Cause::Unavailable,
        Cause::Unavailable => Cause::Malformed,
        Cause::Malformed => Cause::ExpiredOnArrival,
        Cause::ExpiredOnArrival => return None,
    })
}

#[test]
fn every_cause_has_a_row() {
    let causes = std::iter::successors(Some(Cause::NoAssertion), |cause| after(*cause));
    for cause in causes {
        let error = MintError::new(Hop::Assertion, cause);
        assert!(Failure::of(&error).is_some(), "{cause:?} has no row");
    }
}

#[test]
fn no_code_stands_in_two_rows() {
    let mut seen = BTreeSet::new();
    for (code, _) in codes() {
        assert!(seen.insert(code), "{code} stands twice");
    }
}

#[test]
fn every_row_is_found_by_what_it_is_recognised_by() {
    for row in catalogue() {
        let errors = match row.when {
            When::Codes(codes) => codes
                .iter()
                .map(|code| MintError::entra(401, &[*code], None))
                .collect(),
            When::Status(hops, ranges) => hops
                .iter()
                .flat_map(|hop| {
                    let statuses = ranges.iter().map(|range| *range.end());
                    statuses.map(|status| match hop {
                        Hop::Entra => MintError::entra(status, &[], None),
                        _ => MintError::registry(*hop, status, None),
                    })
                })
                .collect(),
            When::Other(_) => vec![MintError::new(Hop::Assertion, row.cause)],
        };
        for error in errors {
            let found = Failure::of(&error).unwrap();
            assert!(std::ptr::eq(found, row), "{error:?} finds {found:?}");
            assert_eq!((error.cause, error.class()), (row.cause, row.class));
            assert!(error.to_string().ends_with(&row.to_string()), "{error}");
        }
    }
}

#[test]
fn every_row_says_who_must_do_what_in_few_words() {
    // What a remedy may begin with: it asks a person to do something.
    let verbs = [
        "annotate", "assign", "bind", "check", "compare", "correct", "create", "enable", "exclude",
        "give", "let", "look", "make", "open", "point", "publish", "remove", "set", "unset",
    ];
    for row in catalogue() {
        let begins = row.remedy.split_whitespace().next().unwrap();
        let told = row.to_string();
        assert!(row.who == Who::Nobody || verbs.contains(&begins), "{told}");
        assert!(told.contains(&format!("{} must ", row.who)), "{told}");
        assert!(
            row.meaning.len() > 5 && row.meaning.starts_with(|c: char| c.is_ascii()),
            "{told}"
        );
        for text in [row.meaning, row.remedy] {
            assert!(
                !text.ends_with('.') && text.trim() == text && !text.contains(['|', '\n']),
                "{text}"
            );
        }
        assert!(told.len() <= 360, "{}: {told}", told.len());
    }
}

#[test]
fn newer_codes_of_the_federation_family_are_mismatches() {
    for code in [700_214, 700_219, 7_002_199] {
        let error = MintError::entra(401, &[code], None);
        assert_eq!(error.cause, Cause::Federation, "{code}");
        let unspecified = Failure::by_code(entra::MISMATCH).unwrap().to_string();
        assert!(error.to_string().ends_with(&unspecified), "{error}");
    }
    for code in [7_002, 70_022, 700_220, 170_021] {
        let error = MintError::entra(401, &[code], None);
        assert_eq!(error.cause, Cause::EntraRefused, "{code}");
    }
}

#[test]
fn the_status_decides_before_the_code() {
    for (status, codes, cause, code) in [
        (429, &[700_213][..], Cause::Throttled, Some(700_213)),
        (503, &[700_213], Cause::Unavailable, Some(700_213)),
        (408, &[90_002], Cause::Unavailable, Some(90_002)),
        (307, &[90_002], Cause::Malformed, Some(90_002)),
        (204, &[90_002], Cause::Malformed, Some(90_002)),
        (401, &[90_002], Cause::UnknownIdentity, Some(90_002)),
        // The first code that is known says most.
        (400, &[1, 90_002], Cause::UnknownIdentity, Some(90_002)),
        (400, &[1, 2], Cause::EntraRefused, Some(1)),
        (400, &[], Cause::EntraRefused, None),
    ] {
        let error = MintError::entra(status, codes, None);
        assert_eq!(
            (error.cause, error.code),
            (cause, code),
            "{status} {codes:?}"
        );
    }
}

#[test]
fn a_registry_is_told_by_its_status() {
    for (status, cause, class) in [
        (400, Cause::RequestRefused, Class::Terminal),
        (401, Cause::RegistryRefused, Class::Propagation),
        (403, Cause::RegistryForbidden, Class::Propagation),
        (404, Cause::Malformed, Class::Retryable),
        (408, Cause::Unavailable, Class::Retryable),
        (429, Cause::Throttled, Class::Retryable),
        (302, Cause::Malformed, Class::Retryable),
        (500, Cause::Unavailable, Class::Retryable),
        (999, Cause::Unavailable, Class::Retryable),
    ] {
        let error = MintError::registry(Hop::Exchange, status, None);
        assert_eq!((error.cause, error.class()), (cause, class), "{status}");
    }
}

#[test]
fn a_loop_is_answered_with_minutes_of_silence() {
    let seen = MintError::entra(400, &[LOOP_DETECTED], None);
    assert_eq!(seen.retry_after, Some(LOOP_PAUSE));
    let other = MintError::entra(400, &[90_055], None);
    assert_eq!(other.retry_after, None);
}

#[test]
fn only_an_assertion_that_was_refused_as_such_is_minted_anew() {
    for (code, anew) in [
        (700_024, true),
        (500_133, true),
        (50_012, true),
        (50_013, true),
        (700_027, false),
        (700_213, false),
    ] {
        let error = MintError::entra(401, &[code], None);
        assert_eq!(error.wants_fresh_assertion(), anew, "{code}");
    }
    // A server that fails is not asked twice, whatever code it gives.
    assert!(!MintError::entra(503, &[700_024], None).wants_fresh_assertion());
}

#[test]
fn a_retry_after_of_a_year_is_capped() {
    let year = Some(SignedDuration::from_hours(24 * 365));
    assert_eq!(
        MintError::entra(429, &[], year).retry_after,
        Some(RETRY_AFTER_CAP)
    );
    let past = Some(SignedDuration::from_secs(-1));
    assert_eq!(
        MintError::registry(Hop::Exchange, 429, past).retry_after,
        Some(SignedDuration::ZERO)
    );
}

#[test]
fn the_text_names_hop_status_and_code() {
    let text = MintError::entra(401, &[700_213], None).to_string();
    assert!(
        text.starts_with("Microsoft Entra (HTTP 401, AADSTS700213): no federated"),
        "{text}"
    );
}
