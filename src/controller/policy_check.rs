//! Keeps track of whether the admission policy that protects Secrets is in force. acrcred writes nothing unless it is.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Controller;
use super::answer;
use crate::credential::saturating_add;
use crate::plan::{Backoff, PolicyCheck, PolicyState};

/// How often the policy is checked once it is in force.
const IN_FORCE: SignedDuration = SignedDuration::from_hours(1);
/// So many checks in a row must be without an answer before that is reported.
const UNCLEAR: u32 = 3;
/// How soon it is checked again while no Secret of ours could be part of the check.
const IN_FORCE_IN_PART: SignedDuration = SignedDuration::from_mins(1);

// === impl Controller ===

impl Controller {
    /// Checks the policy when an object asks for it, and now and then. Never ends.
    pub(super) async fn keep_policy_checked(self: Arc<Self>) {
        let (mut turn, mut failures, mut check_at) = (0, 0, None::<Timestamp>);
        loop {
            let now = self.clock.now();
            // A check that failed is repeated in its own time, whoever asks.
            let may_ask = failures == 0 || check_at.is_none_or(|at| at <= now);
            let until = check_at.unwrap_or_else(|| saturating_add(now, IN_FORCE));
            let is_asked = tokio::select! {
                () = self.policy_wanted.notified(), if may_ask => true,
                () = self.clock.nap_until(until) => false,
            };
            let now = self.clock.now();
            if is_asked && self.known_cluster().policy.is_recent(now) {
                // A check that ended meanwhile has answered it.
                self.schedule_all();
                continue;
            }
            if !is_asked && now < until {
                // After a step of the clock, no wait is longer than its own limit.
                check_at = check_at.map(|at| at.min(saturating_add(now, IN_FORCE)));
                continue;
            }
            // Without an object there is nothing to check for; the next one asks. So it does after a change of leaders.
            check_at = None;
            if !self.is_leading() {
                continue;
            }
            let Some((mut check, is_whole)) = self.check_policy(turn).await else {
                continue;
            };
            turn += 1;
            let is_good = check.state == PolicyState::InForce && check.obstacle.is_none();
            failures = if is_good { 0 } else { failures + 1 };
            let wait = match (is_good, is_whole) {
                (true, true) => IN_FORCE,
                (true, false) => IN_FORCE_IN_PART,
                (false, _) => Backoff::retryable(failures),
            };
            check_at = Some(saturating_add(self.clock.now(), wait));
            // A webhook may be down for a moment: that is no news for every object.
            check.obstacle = check.obstacle.filter(|_| failures >= UNCLEAR);
            self.conclude(&check, is_asked);
        }
    }

    /// Checks once; also whether a Secret of ours was part of it. `None` if there is no object yet.
    async fn check_policy(&self, turn: usize) -> Option<(PolicyCheck, bool)> {
        let (namespaces, secrets) = self.objects.policy_samples(turn);
        // One sample after the other until one gives an answer: some may not exist any more, or be a user's to spoil.
        let (mut unmarked, mut seized) = (None, None);
        for namespace in &namespaces {
            unmarked = Some(self.cluster.refuses_unmarked(namespace).await);
            if let Some(Ok(_)) = unmarked {
                break;
            }
        }
        let unmarked = unmarked?;
        for secret in secrets.iter().filter(|_| matches!(unmarked, Ok(true))) {
            seized = self.cluster.refuses_seizing(secret).await.ok();
            if seized.is_some() {
                break;
            }
        }
        let concluded = |state| PolicyCheck {
            state,
            checked_at: Some(self.clock.now()),
            obstacle: None,
        };
        if let Err(failure) = &unmarked {
            tracing::warn!(%failure, ?namespaces, "cannot check the admission policy for Secrets");
        }
        let check = match (&unmarked, &seized) {
            (Ok(false), _) | (_, Some(false)) => concluded(PolicyState::Missing),
            // Also if no Secret could be judged, as when another client just changed or deleted it.
            (Ok(true), _) => concluded(PolicyState::InForce),
            // No answer to the question leaves the last one unchanged.
            (Err(failure), _) => PolicyCheck {
                obstacle: Some(answer::unchecked(failure)),
                ..self.known_cluster().policy.clone()
            },
        };
        Some((check, seized.is_some()))
    }

    /// Takes note of a check. If it is news, or an object has asked for it, every object decides again.
    fn conclude(&self, check: &PolicyCheck, is_asked: bool) {
        let before = self.known_cluster().policy.clone();
        let is_news = (before.state, &before.obstacle) != (check.state, &check.obstacle);
        self.learn(|facts| facts.policy = check.clone());
        let is_in_force = check.state == PolicyState::InForce;
        self.metrics.policy_is_in_force(is_in_force);
        if is_news || is_asked {
            self.schedule_all();
        }
        match check.state {
            _ if !is_news || check.obstacle.is_some() => {}
            PolicyState::InForce => tracing::info!("the admission policy for Secrets is in force"),
            PolicyState::Missing => tracing::error!(
                "the admission policy for Secrets is not in force, so acrcred writes no Secret; install it with the chart value policies.install=true"
            ),
            PolicyState::Unknown => {}
        }
    }
}
