//! Arbitrary sequences of events: what must hold after each step, and that every state leads to Ready or to a final
//! refusal once Azure and the API server are healthy.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::events::{Account, CallFault, Event, MintEnd, SERVERS, Tampering, events};
use super::*;
use crate::api::ServiceAccountIdentity;
use crate::credential::Credential;
use crate::fuzzing::config;
use crate::plan::facts::Place;

/// How many runs there are; more steps than events are taken.
const RUNS: u32 = 4_000;
/// The steps that all runs together must take.
const STEPS: usize = 200_000;
/// The longest time in which a healthy world must be Ready: a `Retry-After` of 15 minutes, a terminal retry of 12.
const RECOVERY: SignedDuration = SignedDuration::from_mins(30);

/// The world, with what is under way in it.
struct Run {
    world: World,
    /// Mints under way, and the generation of the process that started them.
    mints: Vec<(MintRequest, u32)>,
    process: u32,
    fault: CallFault,
    late: Vec<SecretCall>,
    /// When each token was issued, by its text: a serial number and its credential.
    serials: BTreeMap<String, usize>,
    /// Another client has changed the Secret, or a write was lost, since acrcred last wrote it.
    is_uncertain: bool,
    was_clock_set: bool,
    steps: usize,
}

#[test]
fn every_step_is_valid_and_every_state_recovers() {
    let steps = Cell::new(0);
    let mut runner = TestRunner::new(config(RUNS));
    let result = runner.run(&events(), |events| {
        let mut run = Run::new();
        run.settle()?;
        for event in events {
            run.happens(&event);
            run.settle()?;
        }
        let end = run.recovers();
        steps.set(steps.get() + run.steps);
        end
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(steps.get() >= STEPS, "{} steps only", steps.get());
}

fn found() -> ServiceAccountFacts {
    ServiceAccountFacts {
        uid: "puller-uid".into(),
        client_id: Some("33333333-3333-3333-3333-333333333333".into()),
        tenant_id: Some("22222222-2222-2222-2222-222222222222".into()),
        audience: None,
    }
}

impl Run {
    fn new() -> Self {
        let mut world = World::of(&[CONTOSO, FABRIKAM]);
        world.checks_policy = false;
        world.service_account = Ok(found());
        world
            .configure(|settings| settings.secret_metadata_prefixes = vec!["team.example/".into()]);
        Self {
            world,
            mints: Vec::new(),
            process: 0,
            fault: CallFault::Healthy,
            late: Vec::new(),
            serials: BTreeMap::new(),
            is_uncertain: false,
            was_clock_set: false,
            steps: 0,
        }
    }

    fn happens(&mut self, event: &Event) {
        let world = &mut self.world;
        match event {
            Event::Wait(seconds) => world.advance(secs(*seconds)),
            Event::MintEnds(end) => self.mint_ends(*end),
            Event::Calls(fault) => self.fault = *fault,
            Event::LateRequest => self.late_request(),
            Event::ToggleRegistry(server) => world.edit(|spec| {
                let server = SERVERS[*server];
                let before = spec.registries.len();
                spec.registries.retain(|registry| registry.server != server);
                if spec.registries.len() == before || spec.registries.is_empty() {
                    spec.registries.push(world::registry(server));
                }
            }),
            Event::Limit(server, count) => world.edit(|spec| {
                let names = ["team/app", "team/db"].map(str::to_owned);
                let limit = (*count > 0).then(|| names[..*count].to_vec());
                let mut registries = spec.registries.iter_mut();
                if let Some(registry) = registries.find(|r| r.server == SERVERS[*server]) {
                    registry.repositories = limit;
                }
            }),
            Event::Suspend(suspend) => world.edit(|spec| spec.suspend = *suspend),
            Event::Label(value) => world.edit(|spec| {
                spec.secret = Some(template(&[("team.example/a", &value.to_string())], &[]));
            }),
            Event::RefreshAnnotation(value) => world.change(|object| {
                let annotations = object.metadata.annotations.get_or_insert_default();
                annotations.insert(crate::api::REFRESH_ANNOTATION.into(), value.to_string());
            }),
            Event::Identity(own) => world.edit(|spec| {
                spec.identity = (!own).then(|| ServiceAccountIdentity {
                    service_account_name: "puller".into(),
                    client_id: None,
                    tenant_id: None,
                });
            }),
            Event::Account(account) => {
                world.service_account = match account {
                    Account::Found => Ok(found()),
                    Account::Missing => Err(Cause::NoServiceAccount),
                    Account::Forbidden => Err(Cause::ImpersonationForbidden),
                    Account::NoAnswer => Err(Cause::ApiServer),
                }
            }
            Event::OwnToken(readable) => {
                let own = World::of(&[]).facts.cluster.own.clone();
                let none = Err(MintError::new(Hop::Assertion, Cause::NoAssertion));
                world.learn(|cluster| cluster.own = if *readable { own } else { none });
            }
            Event::AllowControllerIdentity(allow) => world.configure(|settings| {
                settings.policy = if *allow {
                    Policy(vec!["demo/*".parse().unwrap()])
                } else {
                    Policy::default()
                };
            }),
            Event::Policy(state) => world.learn(|cluster| cluster.policy.state = *state),
            Event::SecretIs(tampering) => self.tamper(*tampering),
            Event::WatchReports => {
                let version = world.api.secret.as_ref();
                let version = version.and_then(|secret| secret.metadata.resource_version.clone());
                world
                    .facts
                    .secret_changed(version.as_deref(), Some("another".into()));
            }
            Event::Restart => {
                self.process += 1;
                world.restart();
            }
            Event::ClockMoves(seconds) => {
                self.was_clock_set = true;
                world.advance(secs(*seconds));
                let now = world.now;
                world.learn(|cluster| cluster.rebase(now));
            }
        }
    }

    fn mint_ends(&mut self, end: MintEnd) {
        if self.mints.is_empty() {
            return;
        }
        let (request, process) = self.mints.remove(0);
        let result = match end {
            MintEnd::Issued(life) => Some(Ok(self.issue(&request, life))),
            MintEnd::Unavailable => Some(Err(unavailable())),
            MintEnd::Refused => Some(Err(no_role())),
            MintEnd::Terminal => Some(Err(unknown_tenant())),
            MintEnd::Throttled => Some(Err(throttled(secs(600)))),
            MintEnd::Cancelled => None,
        };
        if process == self.process {
            self.world.facts.minted(&request, result, self.world.now);
        }
    }

    fn issue(&mut self, request: &MintRequest, life: i64) -> Credential {
        let credential = self.world.credential(secs(life), &request.scope);
        let serial = self.serials.len();
        self.serials
            .insert(credential.token.expose().to_owned(), serial);
        credential
    }

    fn late_request(&mut self) {
        if !self.late.is_empty() {
            let call = self.late.remove(0);
            let before = self.world.api.secret.clone();
            let _ = self.world.api.answer(&call);
            self.check_stored(before.as_ref()).unwrap();
        }
    }

    fn tamper(&mut self, tampering: Tampering) {
        self.is_uncertain = true;
        let api = &mut self.world.api;
        match (tampering, api.secret.is_some()) {
            (Tampering::Changed, true) => api.change(|secret| {
                secret.data = None;
                secret.metadata.labels = None;
            }),
            (Tampering::Terminating, true) => api.change(|secret| {
                let at = "2026-11-25T00:00:00Z".parse().unwrap();
                secret.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
                secret.metadata.finalizers = Some(vec!["example.com/x".into()]);
            }),
            (Tampering::Deleted, _) => api.secret = None,
            (Tampering::Foreign, _) => {
                api.secret = None;
                api.store(foreign());
            }
            (Tampering::HandedOver, true) => {
                api.change(|secret| annotate(secret, OWNER_ANNOTATION, "acr"));
            }
            (_, false) => {}
        }
    }

    /// Steps until nothing is left to do now; mints stay under way.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..40 {
            self.steps += 1;
            let before: Vec<_> = self.in_hand();
            let policy = self.world.facts.cluster.policy.state;
            let step = self.world.decide();
            self.check_mints(&step, &before)?;
            let now = self.world.now;
            let process = self.process;
            self.mints
                .extend(step.mints.iter().map(|mint| (mint.clone(), process)));
            if step.checks_policy && policy == PolicyState::InForce {
                // The check is made at once.
                self.world
                    .learn(|cluster| cluster.policy.checked_at = Some(now));
                continue;
            }
            match step.call {
                Some(Call::Secret(call)) => {
                    self.check_call(&call, policy)?;
                    self.carry_out(*call)?;
                }
                Some(Call::WriteStatus(write)) => {
                    self.check_status(&write.status)?;
                    let call = Call::WriteStatus(write);
                    self.world.carry_out(call, &mut Look::default());
                }
                Some(call) => self.world.carry_out(call, &mut Look::default()),
                None => {
                    let latest = now + self.world.facts.cluster.resync_interval;
                    let is_soon = step.wake_at.is_some_and(|at| now < at && at <= latest);
                    prop_assert!(is_soon, "wakes at {:?}, now is {now}", step.wake_at);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "steps without end: {:?}", self.world.step());
        Ok(())
    }

    fn carry_out(&mut self, call: SecretCall) -> Result<(), TestCaseError> {
        let before = self.world.api.secret.clone();
        let failed = || SecretAnswer::Failed {
            problem: Some(Problem {
                reason: Reason::SecretWriteFailed,
                message: "no answer".into(),
                needs_action: false,
            }),
            retry_after: SignedDuration::ZERO,
        };
        let is_write = call.write().is_some();
        let answer = match self.fault {
            CallFault::Healthy => self.world.api.answer(&call),
            CallFault::LosesAnswers => {
                let _ = self.world.api.answer(&call);
                failed()
            }
            CallFault::LosesRequests => {
                self.late.push(call.clone());
                failed()
            }
            CallFault::Refuses => failed(),
        };
        self.check_stored(before.as_ref())?;
        if is_write {
            self.is_uncertain = !matches!(answer, SecretAnswer::Stored(_)) || !self.late.is_empty();
        }
        let now = self.world.now;
        self.world.facts.secret_answered(call, answer, now);
        Ok(())
    }

    /// Credentials in hand that are not due: what they were issued for.
    fn in_hand(&self) -> Vec<(String, crate::credential::IssuedFor)> {
        let facts = &self.world.facts;
        let due_at = |issued: &Issued| {
            let lifetime = issued.credential.lifetime;
            super::super::schedule::refresh_at(&lifetime, 0.5, "uid-1")
        };
        facts
            .registries
            .iter()
            .filter_map(|(server, known)| Some((server, known.in_hand.as_ref()?)))
            .filter(|(_, (issued, _))| {
                self.world.now < due_at(issued) && facts.object.refresh_request().is_none()
            })
            .filter(|(_, (issued, _))| {
                issued.credential.lifetime.start <= self.world.now + crate::credential::CLOCK_STEP
            })
            .map(|(server, (issued, _))| (server.clone(), issued.issued_for.clone()))
            .collect()
    }

    fn check_mints(
        &self,
        step: &Step,
        in_hand: &[(String, crate::credential::IssuedFor)],
    ) -> Result<(), TestCaseError> {
        let facts = &self.world.facts;
        for mint in &step.mints {
            let server = mint.server.as_str();
            let issued_for = mint.issued_for();
            prop_assert!(!facts.object.spec.suspend, "minted while suspended");
            prop_assert!(
                !in_hand.contains(&(server.to_owned(), issued_for.clone())),
                "minted twice for one write: {server}"
            );
            let registry = facts
                .object
                .spec
                .registries
                .iter()
                .find(|r| r.server == server);
            prop_assert!(registry.is_some(), "minted for what is not in the spec");
            let in_flight = self.mints.iter().filter(|(other, process)| {
                *process == self.process
                    && other.issued_for() == issued_for
                    && other.server == mint.server
            });
            prop_assert_eq!(in_flight.count(), 0, "two mints of the same at once");
        }
        Ok(())
    }

    fn check_call(&self, call: &SecretCall, policy: PolicyState) -> Result<(), TestCaseError> {
        let Some(write) = call.write() else {
            return Ok(());
        };
        prop_assert_eq!(policy, PolicyState::InForce, "a write without the policy");
        let facts = &self.world.facts;
        let may_use_own = facts.settings.policy.allows(
            "demo",
            &facts.settings.clouds.login_server(CONTOSO).unwrap(),
        );
        for (server, issued) in &write.entries {
            let registry = facts
                .object
                .spec
                .registries
                .iter()
                .find(|r| &r.server == server);
            prop_assert!(registry.is_some(), "{server} is not in the spec");
            let token = issued.credential.token.expose();
            prop_assert!(
                tokens::is_within(token, registry.unwrap()),
                "wider than the spec"
            );
            let is_own = issued.issued_for.principal() == crate::credential::Principal::Controller;
            prop_assert!(
                !is_own || may_use_own,
                "the controller identity is not allowed"
            );
            if facts.object.spec.identity.is_none() {
                prop_assert!(may_use_own, "nothing is allowed");
            }
            let account = facts.account.as_ref().map(|account| &account.state);
            let is_missing = account == Some(&Err(Cause::NoServiceAccount));
            prop_assert!(
                facts.object.spec.identity.is_none() || !is_missing,
                "its identity is gone"
            );
        }
        // Unknown is not no: a known credential that may stay is not dropped.
        for registry in &facts.object.spec.registries {
            let Some(Entry::Known(issued)) = facts
                .registries
                .get(&registry.server)
                .and_then(|known| known.stored.as_ref())
            else {
                continue;
            };
            let is_within = tokens::is_within(issued.credential.token.expose(), registry);
            let is_own = issued.issued_for.principal() == crate::credential::Principal::Controller;
            let is_gone = facts.object.spec.identity.is_some()
                && matches!(
                    facts.account.as_ref().map(|account| &account.state),
                    Some(Err(Cause::NoServiceAccount))
                );
            let must_stay = is_within
                && !is_gone
                && (!is_own || may_use_own)
                && (facts.object.spec.identity.is_some() || may_use_own);
            prop_assert!(
                !must_stay || write.entries.contains_key(&registry.server),
                "{} was dropped for no reason",
                registry.server
            );
        }
        Ok(())
    }

    /// What the API server stored is never older than what it had.
    fn check_stored(&self, before: Option<&Secret>) -> Result<(), TestCaseError> {
        let (Some(before), Some(after)) = (before, &self.world.api.secret) else {
            return Ok(());
        };
        for server in SERVERS {
            let serial = |secret: &Secret| {
                let payload = payload(secret);
                let token = payload["auths"][server]["password"].as_str()?;
                self.serials.get(token).copied()
            };
            if let (Some(old), Some(new)) = (serial(before), serial(after)) {
                prop_assert!(new >= old, "token {new} replaced the newer {old}");
            }
        }
        Ok(())
    }

    fn check_status(&self, status: &AcrCredentialStatus) -> Result<(), TestCaseError> {
        let present = self.world.facts.object.status.as_ref();
        prop_assert!(present != Some(status), "a status that says nothing new");
        let is_ready = conditions(status)[0].starts_with("Ready=True");
        if is_ready && !self.is_uncertain && !self.was_clock_set {
            prop_assert!(
                self.world.holds_all(),
                "ready without a live credential: {status:?}"
            );
        }
        Ok(())
    }

    /// From here on everything is healthy: the object becomes Ready, or ends in a refusal that only a person can undo.
    fn recovers(&mut self) -> Result<(), TestCaseError> {
        self.fault = CallFault::Healthy;
        for event in [
            Event::Account(Account::Found),
            Event::OwnToken(true),
            Event::AllowControllerIdentity(true),
            Event::Policy(PolicyState::InForce),
        ] {
            self.happens(&event);
        }
        let start = self.world.now;
        while self.world.now <= start + RECOVERY {
            while !self.mints.is_empty() {
                self.mint_ends(MintEnd::Issued(10_800));
            }
            self.settle()?;
            if self.mints.is_empty() {
                let wake_at = self.world.step().wake_at;
                let wake_at = wake_at.unwrap_or(self.world.now + secs(1));
                self.world.now = self.world.now.max(wake_at);
            }
        }
        let status = conditions(self.world.status());
        let is_foreign = self
            .world
            .api
            .secret
            .as_ref()
            .is_some_and(|secret| annotation(secret, OWNER_ANNOTATION) != Some("acr"));
        let spec = &self.world.facts.object.spec;
        if is_foreign {
            let is_known = status.contains(&"Stalled=True/SecretNotOwned".to_owned());
            // A Secret that was replaced is found by the next write or resync.
            let is_tampered = matches!(self.world.facts.secret.place, Place::At(_));
            prop_assert!(is_known || is_tampered || spec.suspend, "{status:?}");
        } else if spec.suspend {
            prop_assert!(status[0].ends_with("/Suspended"), "{status:?}");
        } else {
            prop_assert_eq!(&status[0], READY[0], "{:?}", self.world.facts.registries);
            prop_assert!(
                self.world.holds_all(),
                "{status:?} {:?}",
                self.world.facts.registries
            );
            prop_assert_eq!(status.len(), 1, "{:?}", status);
        }
        Ok(())
    }
}

fn foreign() -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": "acr", "namespace": "demo"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {},
    }))
    .unwrap()
}
