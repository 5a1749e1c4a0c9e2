//! Every failure that has a meaning of its own: what it means, how it is retried, and who must do what.
//!
//! One table for the code, for `docs/errors.md` and for the tests. A new answer is a new row.

mod answers;
mod entra;

use std::fmt;
use std::ops::RangeInclusive;

pub(super) use entra::LOOP_DETECTED;

use super::mint_error::{Cause, Class, Hop, MintError};

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

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody: it passes.
    Nobody,
    /// Whoever wrote the object.
    Author,
    /// Whoever runs acrcred.
    Operator,
    /// Whoever runs the cluster.
    Cluster,
    /// Whoever owns the managed identity or application.
    Identity,
    /// Whoever administers the Entra tenant.
    Tenant,
    /// Whoever owns the registry.
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

// === impl Who ===

impl Who {
    /// As a message and the documentation name them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Author => "the object's author",
            Self::Operator => "the operator of acrcred",
            Self::Cluster => "the cluster's administrator",
            Self::Identity => "the identity's owner",
            Self::Tenant => "the tenant's administrator",
            Self::Registry => "the registry's owner",
        }
    }
}

// === impl Failure ===

impl Failure {
    /// The row of a failure.
    pub(super) fn of(error: &MintError) -> Option<&'static Self> {
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
    pub(super) fn by_code(code: u32) -> Option<&'static Self> {
        let of = |code: u32| {
            let has = |row: &&Self| matches!(row.when, When::Codes(codes) if codes.contains(&code));
            entra::CODES.iter().find(has)
        };
        of(code).or_else(|| of(entra::MISMATCH).filter(|_| begins_with(code, entra::MISMATCH)))
    }

    /// The row of an HTTP status that is not 2xx, where it has one.
    pub(super) fn by_status(hop: Hop, status: u16) -> Option<&'static Self> {
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
        let (meaning, who, remedy) = (self.meaning, self.who.as_str(), self.remedy);
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
