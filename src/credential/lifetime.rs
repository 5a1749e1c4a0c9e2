//! When a token was issued and when it ends, read from its own claims and never trusted further.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// No token is believed to live longer: whatever an `exp` says, it is looked at again by then.
pub const MAX_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// An `iat` this near is the time at which the token came, and counts as such: read back later, the token
/// then has the same life as it had on arrival.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(5);

/// A wall clock that moves further than this against the monotonic clock was set: what it dated is judged again.
pub const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(5);

/// Refreshes are spread over this part of a life, so that objects which share a credential do not all
/// come at once; a shared one is handed on only while younger than that window.
pub const JITTER_FRACTION: f64 = 0.1;

/// `exp` and `iat` of a JWT (RFC 7519), unverified: the registry judges the signature, we only schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `exp`.
    pub expires_at: Timestamp,
    /// `iat`, where the token has one.
    pub issued_at: Option<Timestamp>,
}

/// The span in which a credential works, on our own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When we received it, or, for one that an earlier process wrote, when it was issued.
    pub start: Timestamp,
    /// When it stops working, at most [`MAX_LIFE`] after `start`.
    pub end: Timestamp,
}

// === impl Claims ===

impl Claims {
    /// Decodes the payload of `jwt`; `None` where it is none, or `exp` is absent, no number, or outside of the
    /// calendar.
    pub fn parse(jwt: &str) -> Option<Self> {
        let payload = payload(jwt)?;
        Some(Self {
            expires_at: timestamp(&payload["exp"])?,
            issued_at: timestamp(&payload["iat"]),
        })
    }
}

/// The claims of a JWT as a JSON object: the middle one of its three parts. Padding is tolerated: some issuers
/// add it.
pub(super) fn payload(jwt: &str) -> Option<Value> {
    let [_, payload, _] = jwt.split('.').collect::<Vec<_>>()[..] else {
        return None;
    };
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok().filter(Value::is_object)
}

/// `NumericDate` of RFC 7519: seconds, a fraction allowed. Beyond year 9999 or before 1970 is no time.
fn timestamp(value: &Value) -> Option<Timestamp> {
    // `as` saturates, and what is out of the calendar then fails in `from_second`.
    #[allow(clippy::cast_possible_truncation)]
    let whole = |seconds: f64| (seconds >= 0.0).then_some(seconds as i64);
    let seconds = value.as_i64().or_else(|| whole(value.as_f64()?))?;
    Timestamp::from_second(seconds)
        .ok()
        .filter(|at| *at >= Timestamp::UNIX_EPOCH)
}

// === impl Lifetime ===

impl Lifetime {
    /// Of a token that arrived just now: `min(exp − now, exp − iat, 24 h)` long, so that neither a
    /// skewed clock nor an absurd `exp` makes us wait too long.
    pub fn received(claims: Claims, now: Timestamp) -> Self {
        let remaining = claims.expires_at.duration_since(now);
        let stated = claims
            .issued_at
            .map_or(remaining, |iat| claims.expires_at.duration_since(iat));
        let life = remaining.min(stated).min(MAX_LIFE);
        let agrees = |iat: &Timestamp| now.duration_since(*iat).abs() <= SAME_TIME;
        let start = claims.issued_at.filter(agrees).unwrap_or(now);
        Self {
            start,
            end: saturating_add(now, life).min(saturating_add(start, MAX_LIFE)),
        }
    }

    /// Of a token that an earlier process wrote, as it recorded it. The record is believed within `limit` of
    /// now: it never lasts longer than the token can, whatever the record or a changed clock says.
    pub fn recorded(
        issued_at: Timestamp,
        expires_at: Timestamp,
        limit: SignedDuration,
        now: Timestamp,
    ) -> Self {
        let stated = expires_at
            .duration_since(issued_at)
            .max(SignedDuration::ZERO);
        Self {
            start: issued_at.min(now),
            end: expires_at.min(saturating_add(now, stated.min(limit))),
        }
    }

    /// As judged after the clock was set back to `now`: it began by now, and is no longer than it was.
    #[must_use]
    pub fn by(self, now: Timestamp) -> Self {
        if self.start <= saturating_add(now, CLOCK_STEP) {
            return self;
        }
        Self {
            start: now,
            end: self.end.min(saturating_add(now, self.length())),
        }
    }

    /// The same in whole seconds, as a status records it.
    #[must_use]
    pub fn in_whole_seconds(self) -> Self {
        let floor = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self {
            start: floor(self.start),
            end: floor(self.end),
        }
    }

    /// Its length; negative for a token that was expired on arrival.
    pub fn length(&self) -> SignedDuration {
        self.end.duration_since(self.start)
    }

    /// `fraction` of its length, none for one that was never live.
    pub fn part(&self, fraction: f64) -> SignedDuration {
        let length = self.length().max(SignedDuration::ZERO).min(MAX_LIFE);
        SignedDuration::from_secs_f64(length.as_secs_f64() * fraction.clamp(0.0, 1.0))
    }

    /// Whether the credential still works.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.end
    }
}

/// `at + by`, or the end of the calendar on that side.
pub(crate) fn saturating_add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn claims_are_read_from_the_payload() {
        let claims = Claims::parse(&jwt(r#"{"exp":1800010800,"iat":1800000000,"x":[]}"#)).unwrap();
        assert_eq!(claims.expires_at, at(1_800_010_800));
        assert_eq!(claims.issued_at, Some(at(1_800_000_000)));
        let fraction = Claims::parse(&jwt(r#"{"exp":1800010800.75}"#)).unwrap();
        assert_eq!(
            (fraction.expires_at, fraction.issued_at),
            (at(1_800_010_800), None)
        );
    }

    #[test]
    fn neither_unusable_expiries_nor_what_is_no_jwt_are_taken() {
        for payload in [
            r"{}",
            r#"{"exp":"1800010800"}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":99999999999999999}"#,
            r#"{"exp":1.5e300}"#,
            r#"{"exp":null}"#,
        ] {
            assert_eq!(Claims::parse(&jwt(payload)), None, "{payload}");
        }
        for text in [
            "",
            "a.b",
            "a.b.c.d",
            "..",
            "a.!.c",
            &jwt("[1]"),
            &jwt(r#"{"exp":1e400}"#),
            &jwt("{"),
        ] {
            assert_eq!(Claims::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_life_is_the_shortest_of_what_the_clocks_and_claims_say() {
        let now = at(1_800_000_000);
        let life = |exp: i64, iat: Option<i64>| {
            let claims = Claims {
                expires_at: at(1_800_000_000 + exp),
                issued_at: iat.map(|iat| at(1_800_000_000 + iat)),
            };
            Lifetime::received(claims, now).length().as_secs()
        };
        assert_eq!(life(10_800, Some(0)), 10_800);
        assert_eq!(life(10_800, None), 10_800);
        assert_eq!(
            life(11_400, Some(600)),
            10_800,
            "our clock is 10 minutes behind"
        );
        assert_eq!(
            life(10_200, Some(-600)),
            10_200,
            "our clock is 10 minutes ahead"
        );
        assert_eq!(life(2_000_000_000, Some(0)), 86_400, "clamped to a day");
        assert_eq!(life(-5, Some(-100)), -5, "expired on arrival");
    }

    #[test]
    fn a_recorded_life_is_believed_within_its_limit_of_now() {
        let limit = SignedDuration::from_mins(195);
        let recorded = |from, to, now| {
            let life = Lifetime::recorded(at(from), at(to), limit, at(now));
            (life.start.as_second(), life.end.as_second())
        };
        assert_eq!(recorded(1_000, 11_800, 5_000), (1_000, 11_800));
        assert_eq!(recorded(0, 999_999, 5_000), (0, 5_000 + 195 * 60), "forged");
        assert_eq!(
            recorded(20_000, 30_800, 5_000),
            (5_000, 15_800),
            "the clock went back: no longer than it was issued for"
        );
        assert_eq!(
            recorded(9_000, 1_000, 5_000),
            (5_000, 1_000),
            "nonsense is expired"
        );
    }
}
