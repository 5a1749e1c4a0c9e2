//! Keeps track of whether the admission policy that protects Secrets is in force. acrcred writes nothing unless it is.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Controller;
use super::cluster::PolicyAnswer;
use crate::credential::saturating_add;
use crate::plan::{Backoff, PolicyCheck, PolicyState, Revision};

/// How often the policy is checked once it is in force.
const IN_FORCE: SignedDuration = SignedDuration::from_hours(1);
/// So many checks in a row, in as many namespaces, must be without an answer before that is reported.
const UNCLEAR: usize = 3;
/// How soon it is checked again while no Secret of ours could be part of the check.
const IN_FORCE_IN_PART: SignedDuration = SignedDuration::from_mins(1);

// === impl Controller ===

impl Controller {
    /// Checks the policy when an object asks for it, and now and then. Never ends.
    pub(super) async fn keep_policy_checked(self: Arc<Self>) {
        let (mut turn, mut backoff, mut check_at) = (0, None::<Backoff>, None::<Timestamp>);
        let mut unclear = 0;
        loop {
            let now = self.clock.now();
            // A check that failed is repeated in its own time, whoever asks.
            let may_request = backoff.is_none() || check_at.is_none_or(|at| at <= now);
            let until = check_at.unwrap_or_else(|| saturating_add(now, IN_FORCE));
            tokio::select! {
                () = self.policy_wanted.notified(), if may_request => {
                    // A check that ended meanwhile has answered it.
                    if self.known_cluster().policy.is_recent(self.clock.now()) {
                        continue;
                    }
                }
                () = self.clock.nap_until(until) => {
                    if self.clock.now() < until {
                        // After a step of the clock, no wait is longer than its own limit.
                        check_at = check_at.map(|at| at.min(saturating_add(self.clock.now(), IN_FORCE)));
                        continue;
                    }
                }
            }
            if !self.is_leading() {
                check_at = None;
                continue;
            }
            let Some((mut check, is_whole)) = self.check_policy(turn).await else {
                // Without an object there is nothing to check for; the next one asks.
                check_at = None;
                continue;
            };
            turn += 1;
            let now = self.clock.now();
            let wait = if check.state == PolicyState::InForce && check.obstacle.is_none() {
                backoff = None;
                if is_whole { IN_FORCE } else { IN_FORCE_IN_PART }
            } else {
                let none = Revision::default();
                let next = Backoff::after(
                    backoff.as_ref(),
                    none.clone(),
                    Backoff::retryable,
                    SignedDuration::ZERO,
                    "policy",
                    now,
                );
                let wait = next.next_at(&none).duration_since(now);
                backoff = Some(next);
                wait
            };
            check_at = Some(saturating_add(now, wait));
            // One namespace may be going, or have a policy of its own: that is no news for all others.
            unclear = if check.obstacle.is_some() {
                unclear + 1
            } else {
                0
            };
            check.obstacle = check.obstacle.filter(|_| unclear >= UNCLEAR);
            self.conclude(check);
        }
    }

    /// Checks once; also whether a Secret of ours was part of it. `None` if there is no object yet.
    async fn check_policy(&self, turn: usize) -> Option<(PolicyCheck, bool)> {
        let (namespace, secret) = self.objects.policy_sample(turn)?;
        let mut answers = vec![self.cluster.try_unmarked(&namespace).await];
        if let (PolicyAnswer::Refused, Some((key, secret))) = (answers[0], &secret) {
            answers.push(self.cluster.try_seizing(key, secret).await);
        }
        let before = self.known_cluster().policy;
        let unclear = answers.iter().find_map(|answer| match answer {
            PolicyAnswer::Unclear(code) => Some(code.unwrap_or_default()),
            _ => None,
        });
        let is_whole = answers.len() > 1;
        let concluded = |state| PolicyCheck {
            state,
            checked_at: Some(self.clock.now()),
            obstacle: None,
        };
        let check = match unclear {
            _ if answers.contains(&PolicyAnswer::Accepted) => concluded(PolicyState::Missing),
            // The second question could not be answered, as when the Secret was just changed or deleted. The first one was.
            Some(_) if is_whole && before.state != PolicyState::Missing => {
                concluded(PolicyState::InForce)
            }
            // No answer to the question leaves the last one unchanged.
            Some(code) => PolicyCheck {
                obstacle: Some(code),
                ..before
            },
            None => concluded(PolicyState::InForce),
        };
        Some((check, is_whole && unclear.is_none()))
    }

    /// Takes note of a check. Objects that waited for it decide again.
    fn conclude(&self, check: PolicyCheck) {
        let before = self.known_cluster().policy;
        self.learn(|facts| facts.policy = check);
        self.schedule_all();
        if (before.state, before.obstacle) == (check.state, check.obstacle) {
            return;
        }
        match (check.state, check.obstacle) {
            (PolicyState::InForce, None) => {
                tracing::info!("the admission policy for Secrets is in force");
            }
            (PolicyState::Missing, _) => tracing::error!(
                "the admission policy for Secrets is not in force, so acrcred writes no Secret; install it with the chart value policies.install=true"
            ),
            (_, code) => tracing::warn!(
                code,
                "cannot check whether the admission policy for Secrets is in force"
            ),
        }
    }
}
