//! Every failure that has a meaning of its own: what it means, how it is retried, and who must do what.
//!
//! One table for the code, for `docs/errors.md` and for the tests. A new answer is a new row.

mod answers;
mod entra;

use std::fmt;
use std::ops::RangeInclusive;

use jiff::SignedDuration;

use super::mint_error::{Cause, Class, Hop, MintError, RETRY_AFTER_CAP};
use entra::LOOP_DETECTED;

/// Entra wants no request for minutes once it saw a loop, and does not say how many.
const LOOP_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// A row of the catalogue.
#[derive(Debug)]
pub struct Failure {
    /// What it is recognised by.
    pub when: When,
    /// What went wrong.
    pub cause: Cause,
    /// How it is retried.
    pub class: Class,
    /// What happened, in our own words.
    pub meaning: &'static str,
    /// Who must act before it can work, or where it lasts.
    pub who: Who,
    /// What they must do, beginning with the verb; with the `az` command where there is one.
    pub remedy: &'static str,
}

/// What a failure is recognised by.
#[derive(Debug)]
pub enum When {
    /// AADSTS codes in an answer of Entra whose status alone says no more than "refused".
    Codes(&'static [u32]),
    /// An HTTP status in the answer of one of these hops.
    Status(&'static [Hop], &'static [RangeInclusive<u16>]),
    /// What has no code and no status of its own, in words.
    Other(&'static str),
}

/// Who must act, as a message and the documentation name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Who {
    /// Nobody: it passes.
    #[strum(serialize = "nobody")]
    Nobody,
    /// Whoever wrote the object.
    #[strum(serialize = "the object's author")]
    Author,
    /// Whoever runs acrcred.
    #[strum(serialize = "the operator of acrcred")]
    Operator,
    /// Whoever runs the cluster.
    #[strum(serialize = "the cluster's administrator")]
    Cluster,
    /// Whoever owns the managed identity or application.
    #[strum(serialize = "the identity's owner")]
    Identity,
    /// Whoever administers the Entra tenant.
    #[strum(serialize = "the tenant's administrator")]
    Tenant,
    /// Whoever owns the registry.
    #[strum(serialize = "the registry's owner")]
    Registry,
}

const fn row(
    when: When,
    cause: Cause,
    class: Class,
    meaning: &'static str,
    who: Who,
    remedy: &'static str,
) -> Failure {
    Failure {
        when,
        cause,
        class,
        meaning,
        who,
        remedy,
    }
}

// === impl Failure ===

impl Failure {
    /// The row of a failure.
    fn of(error: &MintError) -> Option<&'static Self> {
        let fits = |row: &&Self| row.cause == error.cause;
        let by_code = || error.code.and_then(Self::by_code).filter(fits);
        let by_status = || Self::by_status(error.hop, error.status?).filter(fits);
        by_code()
            .or_else(by_status)
            .or_else(|| answers::OTHERS.iter().find(fits))
            .or_else(|| catalogue().find(fits))
    }

    /// The row of an AADSTS code. Entra splits its codes further now and then: what begins like the
    /// federation mismatch is one.
    fn by_code(code: u32) -> Option<&'static Self> {
        let of = |code: u32| {
            let has = |row: &&Self| matches!(row.when, When::Codes(codes) if codes.contains(&code));
            entra::CODES.iter().find(has)
        };
        of(code).or_else(|| of(entra::MISMATCH).filter(|_| begins_with(code, entra::MISMATCH)))
    }

    /// The row of an HTTP status that is not 2xx, where it has one.
    fn by_status(hop: Hop, status: u16) -> Option<&'static Self> {
        let has = |row: &&Self| match row.when {
            When::Status(hops, ranges) => {
                hops.contains(&hop) && ranges.iter().any(|range| range.contains(&status))
            }
            _ => false,
        };
        answers::STATUSES.iter().find(has)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (meaning, who, remedy) = (self.meaning, self.who, self.remedy);
        match (self.who, self.class) {
            (Who::Nobody, _) => write!(f, "{meaning}; {who} must act, {remedy}"),
            (_, Class::Retryable | Class::Escalating) => {
                write!(f, "{meaning}; if this lasts, {who} must {remedy}")
            }
            (_, Class::Propagation) => {
                write!(
                    f,
                    "{meaning}; {who} must {remedy}; what was done needs up to 10 minutes to spread"
                )
            }
            (_, Class::Terminal | Class::Awaited) => write!(f, "{meaning}; {who} must {remedy}"),
        }
    }
}

// === impl MintError ===

impl MintError {
    /// Of an answer of Entra that is not 2xx. The status decides first, the code refines
    /// (learn.microsoft.com, "Microsoft Entra authentication and authorization error codes").
    pub fn entra(status: u16, codes: &[u32], retry_after: Option<SignedDuration>) -> Self {
        let known = codes
            .iter()
            .find_map(|&code| Some((code, Failure::by_code(code)?.cause)));
        let (code, cause) = match (cause_of_status(Hop::Entra, status), known) {
            (Cause::EntraRefused, Some((code, cause))) => (Some(code), cause),
            (cause, _) => (codes.first().copied(), cause),
        };
        let pause = (code == Some(LOOP_DETECTED)).then_some(LOOP_PAUSE);
        Self {
            status: Some(status),
            code,
            retry_after: retry_after.or(pause).map(cap),
            ..Self::new(Hop::Entra, cause)
        }
    }

    /// Of an answer of the registry that is not 2xx.
    pub fn registry(hop: Hop, status: u16, retry_after: Option<SignedDuration>) -> Self {
        Self {
            status: Some(status),
            retry_after: retry_after.map(cap),
            ..Self::new(hop, cause_of_status(hop, status))
        }
    }

    /// How it is retried.
    pub fn class(&self) -> Class {
        Failure::of(self).map_or(Class::Retryable, |failure| failure.class)
    }
}

fn cap(retry_after: SignedDuration) -> SignedDuration {
    retry_after.clamp(SignedDuration::ZERO, RETRY_AFTER_CAP)
}

fn cause_of_status(hop: Hop, status: u16) -> Cause {
    Failure::by_status(hop, status).map_or(Cause::Malformed, |failure| failure.cause)
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.hop {
            Hop::Assertion => "Assertion",
            Hop::Entra => "Microsoft Entra",
            Hop::Exchange => "Token exchange",
            Hop::Token => "Repository token",
        };
        f.write_str(who)?;
        match (self.status, self.code) {
            (Some(status), Some(code)) => write!(f, " (HTTP {status}, AADSTS{code})")?,
            (Some(status), None) => write!(f, " (HTTP {status})")?,
            (None, _) => {}
        }
        match Failure::of(self) {
            Some(failure) => write!(f, ": {failure}"),
            None => Ok(()),
        }
    }
}

/// Every row, in the order of the documentation.
pub fn catalogue() -> impl Iterator<Item = &'static Failure> {
    entra::CODES
        .iter()
        .chain(answers::STATUSES)
        .chain(answers::OTHERS)
}

fn begins_with(mut code: u32, prefix: u32) -> bool {
    while code > prefix {
        code /= 10;
    }
    code == prefix
}

#[cfg(test)]
mod tests;
