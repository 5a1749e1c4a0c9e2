//! Which requests fail, and how.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::request::{Seen, Verb};

/// Which requests a rule is about; what is not narrowed matches all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    verb: Option<Verb>,
    resource: Option<(String, String)>,
    name: Option<String>,
    field_manager: Option<String>,
    writes: bool,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The API server never hears of the request.
    BeforeForwarding,
    /// The API server has done it, and its answer is lost.
    AfterCommit,
    /// The client has its answer.
    AfterAnswer,
}

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// This HTTP status, without asking the API server.
    Answer(u16),
    /// 429 with `Retry-After` in seconds, without asking the API server.
    Throttle(u32),
    /// The API server does it, and the client is told this HTTP status.
    AnswerAfterCommit(u16),
    /// The connection closes before the API server hears of it.
    DropBefore,
    /// The connection closes once the API server has done it.
    DropAfter,
    /// No answer, ever.
    Hang,
    /// No answer; the API server hears of it only with [`FaultProxy::deliver`](super::FaultProxy::deliver), as of a packet that a network
    /// held back.
    Late,
    /// It is done and answered; with [`FaultProxy::deliver`](super::FaultProxy::deliver) the API server hears of it once more.
    Twice,
    /// A closure is called; before the client has its answer, the connection closes too.
    Call(Moment, Arc<dyn Fn() + Send + Sync>),
}

/// What happens to which requests.
#[derive(Clone, Debug)]
pub struct Rule {
    matching: Match,
    fault: Fault,
    after: usize,
    times: usize,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

/// The rules in force.
#[derive(Default)]
pub(super) struct Rules(Mutex<Vec<Entry>>);

struct Entry {
    rule: Rule,
    matched: usize,
    hits: usize,
    removed: bool,
}

// === impl Match ===

impl Match {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests that ask for a change, unlike dry runs.
    pub fn writes() -> Self {
        Self {
            writes: true,
            ..Self::default()
        }
    }

    /// Those that do this, but for dry runs.
    pub fn of(verb: Verb) -> Self {
        Self {
            verb: Some(verb),
            ..Self::default()
        }
    }

    /// Those on a resource such as `secrets` or a subresource such as `acrcredentials/status`.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.resource = Some((resource.to_owned(), subresource.to_owned()));
        self
    }

    /// Those on objects of this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Those of this field manager.
    #[must_use]
    pub fn by(mut self, field_manager: &str) -> Self {
        self.field_manager = Some(field_manager.to_owned());
        self
    }

    /// Whether a request is one of those.
    pub fn fits(&self, seen: &Seen) -> bool {
        let changes = !matches!(seen.verb, Verb::Get | Verb::List | Verb::Watch) && !seen.dry_run;
        self.verb
            .is_none_or(|verb| verb == seen.verb && !seen.dry_run)
            && self
                .resource
                .as_ref()
                .is_none_or(|(resource, subresource)| {
                    *resource == seen.resource && *subresource == seen.subresource
                })
            && self.name.as_ref().is_none_or(|name| *name == seen.name)
            && self
                .field_manager
                .as_ref()
                .is_none_or(|manager| *manager == seen.field_manager)
            && (changes || !self.writes)
    }
}

// === impl Rule ===

impl Rule {
    /// `fault` for every request that matches, until the rule is removed.
    pub fn new(matching: Match, fault: Fault) -> Self {
        Self {
            matching,
            fault,
            after: 0,
            times: usize::MAX,
        }
    }

    /// For this many requests only.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Lets this many requests that match pass first.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.after = count;
        self
    }
}

// === impl Rules ===

impl Rules {
    pub(super) fn add(&self, rule: Rule) -> RuleId {
        let mut entries = self.lock();
        entries.push(Entry {
            rule,
            matched: 0,
            hits: 0,
            removed: false,
        });
        RuleId(entries.len() - 1)
    }

    pub(super) fn remove(&self, id: RuleId) {
        if let Some(entry) = self.lock().get_mut(id.0) {
            entry.removed = true;
        }
    }

    pub(super) fn hits(&self, id: RuleId) -> usize {
        self.lock().get(id.0).map_or(0, |entry| entry.hits)
    }

    /// What is to happen to a request; counts it.
    pub(super) fn fault(&self, seen: &Seen) -> Option<Fault> {
        let mut entries = self.lock();
        for entry in entries.iter_mut().filter(|entry| !entry.removed) {
            if !entry.rule.matching.fits(seen) {
                continue;
            }
            entry.matched += 1;
            if entry.matched > entry.rule.after && entry.hits < entry.rule.times {
                entry.hits += 1;
                return Some(entry.rule.fault.clone());
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(status) => write!(f, "{status}"),
            Self::Throttle(seconds) => write!(f, "429, Retry-After {seconds}"),
            Self::AnswerAfterCommit(status) => write!(f, "{status} after commit"),
            Self::DropBefore => f.write_str("dropped before forwarding"),
            Self::DropAfter => f.write_str("dropped after commit"),
            Self::Hang => f.write_str("no answer"),
            Self::Late => f.write_str("delivered late"),
            Self::Twice => f.write_str("delivered twice"),
            Self::Call(moment, _) => write!(f, "a call {moment:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_rule_skips_counts_and_ends() {
        let rules = Rules::default();
        let rule = Rule::new(Match::writes().on("secrets"), Fault::DropBefore);
        let id = rules.add(rule.after(1).times(2));
        let write = Seen::of(
            &Method::POST,
            &"/api/v1/namespaces/a/secrets".parse().unwrap(),
        );
        let dry_run = "/api/v1/namespaces/a/secrets/x?dryRun=All".parse().unwrap();
        assert!(
            rules.fault(&Seen::of(&Method::PUT, &dry_run)).is_none(),
            "a dry run"
        );
        let hits: Vec<bool> = (0..4).map(|_| rules.fault(&write).is_some()).collect();
        assert_eq!((hits, rules.hits(id)), (vec![false, true, true, false], 2));
        let id = rules.add(Rule::new(Match::any(), Fault::Hang));
        assert!(rules.fault(&write).is_some());
        rules.remove(id);
        assert!(rules.fault(&write).is_none());
    }
}
