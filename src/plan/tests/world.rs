//! Plays the controller around `step`: an object, a model of the API server, and the time. Checks after every look what
//! must always hold.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::IntoEnumIterator as _;

use super::api_server::ApiServer;
use super::tokens::{is_within, limited_token, token};
use super::*;
use crate::api::AcrCredentialSpec;
use crate::credential::{AssertionClaims, Claims, Credential, Lifetime, Subject};

/// How long the issued token lives, or why there is none.
pub(super) type Answer = Result<SignedDuration, MintError>;

pub(super) struct World {
    pub facts: Facts,
    pub api: ApiServer,
    pub now: Timestamp,
    /// What reading the object's `ServiceAccount` shows; `None`: the API server does not answer.
    pub service_account: Result<ServiceAccountFacts, Cause>,
    /// Whether the admission policy is checked whenever a step asks for it.
    pub checks_policy: bool,
    /// Mints that have not ended.
    pub under_way: Vec<MintRequest>,
    object_version: u64,
    serial: u32,
    looks: u32,
    /// Life and server of every token that was issued, by its text.
    issued: BTreeMap<String, Lifetime>,
}

/// What happened in one look: steps until nothing is left to do at this time.
#[derive(Default)]
pub(super) struct Look {
    /// Every mint that was started.
    pub mints: Vec<MintRequest>,
    /// Every call about the Secret.
    pub calls: Vec<SecretCall>,
    /// Every status that was written.
    pub statuses: Vec<AcrCredentialStatus>,
    /// Every event that was published.
    pub events: Vec<Condition>,
    /// Every read of the `ServiceAccount`.
    pub reads: usize,
    /// The last step.
    pub step: Step,
}

impl Look {
    /// The registries that were minted for.
    pub fn minted(&self) -> Vec<&str> {
        self.mints.iter().map(|mint| mint.server.as_str()).collect()
    }

    /// The calls that write the Secret.
    pub fn writes(&self) -> Vec<&SecretWrite> {
        self.calls.iter().filter_map(SecretCall::write).collect()
    }

    /// Whether nothing was minted and nothing written.
    pub fn is_idle(&self) -> bool {
        self.mints.is_empty() && self.writes().is_empty() && self.statuses.is_empty()
    }

    /// The reason of the event that was published, if one was.
    pub fn event(&self) -> Option<&str> {
        assert!(self.events.len() <= 1, "{:?}", self.events);
        self.events.first().map(|event| event.reason.as_str())
    }
}

impl World {
    /// An object that was just created, in a namespace that the policy allows.
    pub fn of(registries: &[&str]) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let registries = registries.iter().map(|server| registry(server));
        let mut object = AcrCredential::new(
            "acr",
            AcrCredentialSpec {
                registries: registries.collect(),
                identity: None,
                secret: None,
                attach: None,
                suspend: false,
            },
        );
        object.metadata.namespace = Some("demo".into());
        object.metadata.uid = Some("uid-1".into());
        object.metadata.generation = Some(1);
        object.metadata.resource_version = Some("1".into());
        object.metadata.creation_timestamp = Some(Time(now));
        let client = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        let tenant = "22222222-2222-2222-2222-222222222222".parse().unwrap();
        let settings = Settings {
            policy: Policy(vec!["demo/*".parse().unwrap()]),
            clouds: Cloud::iter().map(EnabledCloud::from).collect(),
            controller: Some((client, tenant)),
            impersonation_audiences: vec![
                "api://AzureCRTokenExchange".into(),
                "api://AzureADTokenExchange".into(),
            ],
            default_tenant_id: None,
            refresh_fraction: 0.5,
            secret_metadata_prefixes: vec![],
        };
        let own = "system:serviceaccount:acrcred-system:acrcred";
        let cluster = ClusterFacts {
            own: Ok(AssertionClaims {
                issuer: "https://issuer.example/".into(),
                subject: Subject {
                    name: own.into(),
                    service_account_uid: "sa-uid".into(),
                    audience: "api://AzureADTokenExchange".into(),
                },
            }),
            own_user: Some(own.into()),
            issuer: None,
            policy: PolicyCheck {
                state: PolicyState::InForce,
                checked_at: Some(now),
                obstacle: None,
            },
            since: now,
            resync_interval: SignedDuration::from_mins(10),
        };
        let object = Arc::new(object);
        Self {
            facts: Facts::new(Arc::new(settings), Arc::new(cluster), object, now),
            api: ApiServer::default(),
            now,
            service_account: Err(Cause::NoServiceAccount),
            checks_policy: true,
            under_way: Vec::new(),
            object_version: 1,
            serial: 0,
            looks: 0,
            issued: BTreeMap::new(),
        }
    }

    /// One whose credentials were all issued and written just now.
    pub fn ready(registries: &[&str]) -> Self {
        let mut world = Self::of(registries);
        world.look();
        assert_eq!(conditions(world.status()), READY);
        world
    }

    pub fn status(&self) -> &AcrCredentialStatus {
        self.facts
            .object
            .status
            .as_ref()
            .expect("no status was written yet")
    }

    pub fn secret(&self) -> &Secret {
        self.api.secret.as_ref().expect("there is no Secret")
    }

    pub fn advance(&mut self, by: SignedDuration) {
        self.now += by;
    }

    /// Changes what the platform administrator decided.
    pub fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.facts.settings));
    }

    /// Changes what is known of the cluster.
    pub fn learn(&mut self, change: impl FnOnce(&mut ClusterFacts)) {
        change(Arc::make_mut(&mut self.facts.cluster));
    }

    /// A new process: it knows the object and nothing else.
    pub fn restart(&mut self) {
        self.under_way.clear();
        self.learn(|_| {});
        let (settings, cluster) = (self.facts.settings.clone(), self.facts.cluster.clone());
        self.facts = Facts::new(settings, cluster, self.facts.object.clone(), self.now);
        let now = self.now;
        self.learn(|cluster| cluster.since = now);
    }

    /// The platform administrator sets `--registry-audience`.
    pub fn ask_for(&mut self, audience: &str) {
        let audience = Audience::new(audience);
        self.configure(|settings| {
            settings.clouds = settings.clouds.clone().with_audience(&audience);
        });
    }

    /// A user changes the object.
    pub fn change(&mut self, change: impl FnOnce(&mut AcrCredential)) {
        let mut object = (*self.facts.object).clone();
        change(&mut object);
        self.object_version += 1;
        object.metadata.resource_version = Some(self.object_version.to_string());
        assert!(self.facts.seen(Arc::new(object), false, self.now));
    }

    /// A user changes the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut AcrCredentialSpec)) {
        self.change(|object| {
            change(&mut object.spec);
            *object.metadata.generation.get_or_insert_default() += 1;
        });
    }

    pub fn forbid_everything(&mut self) {
        self.configure(|settings| settings.policy = Policy::default());
    }

    /// The step that would be taken now; nothing happens.
    pub fn step(&self) -> Step {
        step(&self.facts, self.now)
    }

    /// A look at which every mint succeeds.
    pub fn look(&mut self) -> Look {
        self.look_at(|_| Ok(LIFE))
    }

    /// A look at which every mint fails.
    pub fn look_failing(&mut self, error: MintError) -> Look {
        self.look_at(|_| Err(error))
    }

    /// Steps until nothing is left to do at this time, with an answer for each registry that is minted for.
    pub fn look_at(&mut self, mut answer: impl FnMut(&str) -> Answer) -> Look {
        self.look_slowly(|server| Some(answer(server)))
    }

    /// The same; a mint without an answer stays under way.
    pub fn look_slowly(&mut self, mut answer: impl FnMut(&str) -> Option<Answer>) -> Look {
        self.looks += 1;
        assert!(self.looks < 2_000, "a hot loop");
        let mut look = Look::default();
        loop {
            assert!(look.calls.len() < 12, "calls without end: {:?}", look.calls);
            assert!(
                look.statuses.len() < 4,
                "statuses without end: {:?}",
                look.statuses
            );
            let step = self.decide();
            let mut has_mints = false;
            for mint in &step.mints {
                self.under_way.push(mint.clone());
                if let Some(answer) = answer(mint.server.as_str()) {
                    has_mints = true;
                    self.mint_ends(mint.server.as_str(), answer);
                }
            }
            look.mints.extend(step.mints.iter().cloned());
            let call = step.call.clone();
            look.step = step;
            match call {
                Some(call) => self.carry_out(call, &mut look),
                None if has_mints => {}
                None => break,
            }
        }
        self.check(&look);
        look
    }

    /// The last mint that is under way for a registry ends.
    pub fn mint_ends(&mut self, server: &str, answer: Answer) {
        let place = self
            .under_way
            .iter()
            .rposition(|mint| mint.server.as_str() == server);
        let mint = self.under_way.remove(place.expect("no mint is under way"));
        let result = answer.map(|life| self.credential(life, &mint.scope));
        self.facts.minted(&mint, Some(result), self.now);
    }

    /// Looks when the last look asked for it, with an answer for each mint.
    pub fn wake(&mut self, last: &Look, answer: impl FnMut(&str) -> Answer) -> Look {
        let wake_at = last.step.wake_at.expect("nothing asked for another look");
        self.now = self.now.max(wake_at);
        self.look_at(answer)
    }

    /// Looks again and again, as often as asked for, until `until` or until something happens.
    pub fn sleep(&mut self, until: Timestamp, mut answer: impl FnMut(&str) -> Answer) -> Look {
        loop {
            let wake_at = self.step().wake_at.unwrap_or(until).min(until);
            self.now = self.now.max(wake_at);
            let look = self.look_at(&mut answer);
            if !look.is_idle() || self.now >= until {
                return look;
            }
        }
    }

    /// Looks as often as asked for until something is minted, within a day.
    pub fn until_minted(&mut self, mut answer: impl FnMut(&str) -> Answer) -> Look {
        let until = self.now + SignedDuration::from_hours(24);
        loop {
            let look = self.sleep(until, &mut answer);
            if !look.mints.is_empty() {
                return look;
            }
            assert!(self.now < until, "nothing is minted");
        }
    }

    /// Looks as often as asked for until `until`, with an answer for each mint; gives what happened.
    pub fn pass(&mut self, until: Timestamp, mut answer: impl FnMut(&str) -> Answer) -> Vec<Look> {
        let mut looks = Vec::new();
        while self.now < until {
            let wake_at = self.step().wake_at.unwrap_or(until).min(until);
            self.now = self.now.max(wake_at);
            looks.push(self.look_at(&mut answer));
        }
        looks
    }

    /// Decides as the controller does.
    pub fn decide(&mut self) -> Step {
        if self.checks_policy {
            let now = self.now;
            self.learn(|cluster| cluster.policy.checked_at = Some(now));
        }
        let now = self.now;
        self.facts.refresh_asked(|_| now);
        self.facts.tidy(now);
        let step = step(&self.facts, now);
        self.facts.stepped(&step, now);
        step
    }

    /// Makes a call to the model of the API server, and takes note of the answer.
    pub fn carry_out(&mut self, call: Call, look: &mut Look) {
        match call {
            Call::ReadServiceAccount(name) => {
                look.reads += 1;
                assert!(look.reads < 4, "reads without end");
                self.facts
                    .account_read(&name, self.service_account.clone(), self.now);
            }
            Call::Secret(call) => {
                let answer = self.api.answer(&call);
                look.calls.push((*call).clone());
                self.facts.secret_answered(*call, answer, self.now);
            }
            Call::WriteStatus(write) => {
                look.statuses.push(write.status.clone());
                look.events.extend(write.event);
                self.object_version += 1;
                let mut object = (*self.facts.object).clone();
                object.status = Some(write.status.clone());
                object.metadata.resource_version = Some(self.object_version.to_string());
                self.facts
                    .status_written(write.status, Arc::new(object), self.now);
            }
        }
    }

    /// A credential that was issued now.
    pub fn credential(&mut self, life: SignedDuration, scope: &Scope) -> Credential {
        self.serial += 1;
        let (iat, exp) = (self.now, self.now + life);
        let token = match scope {
            Scope::Registry => token(self.serial, Some(iat), exp),
            Scope::Repositories(_) => limited_token(self.serial, iat, exp, scope.names()),
        };
        let lifetime = Lifetime::received(Claims::parse(token.expose()).unwrap(), self.now);
        self.issued.insert(token.expose().to_owned(), lifetime);
        Credential {
            token,
            lifetime,
            received_at: self.now,
        }
    }

    /// What holds after every look.
    fn check(&self, look: &Look) {
        let again = self.step();
        assert!(
            again.mints.is_empty() && again.call.is_none(),
            "not all was done: {again:?}"
        );
        let wake_at = again.wake_at;
        if self.facts.object.metadata.deletion_timestamp.is_none() {
            let latest = self.now + self.facts.cluster.resync_interval;
            let is_soon = wake_at.is_some_and(|at| self.now < at && at <= latest);
            assert!(is_soon, "wakes at {wake_at:?}, now is {}", self.now);
        }
        if let Some(status) = &self.facts.object.status {
            Self::check_status(status);
        }
        if let Some(secret) = &self.api.secret
            && annotation(secret, OWNER_ANNOTATION) == Some("acr")
        {
            for registry in &self.facts.object.spec.registries {
                let password = &payload(secret)["auths"][&registry.server]["password"];
                let fits =
                    |token: &str| is_within(token, registry) || !self.issued.contains_key(token);
                let is_held = again.waiting_since.is_some() || self.api.refusal.is_some();
                assert!(
                    is_held || password.as_str().is_none_or(fits),
                    "wider than {registry:?}"
                );
            }
            let said = format!("{look:?} {:?} {:?}", self.facts, self.facts.object.status);
            for host in hosts(secret) {
                let password = payload(secret)["auths"][&host]["password"].clone();
                let password = password.as_str().unwrap_or("?????");
                assert!(!said.contains(password), "a token is shown");
            }
        }
    }

    fn check_status(status: &AcrCredentialStatus) {
        let status = conditions(status);
        let has = |condition: &str| status.iter().any(|c| c.starts_with(condition));
        let ready = has("Ready=True");
        assert_ne!(ready, has("Ready=False"), "{status:?}");
        assert!(
            !(ready && (has("Stalled") || has("Reconciling"))),
            "{status:?}"
        );
        assert!(!(has("Stalled") && has("Reconciling")), "{status:?}");
        assert!(ready || !has("RefreshFailing"), "{status:?}");
    }

    /// Whether the Secret is ours and holds a live token for every registry of the spec that was issued here; judged
    /// without the code under test.
    pub fn holds_all(&self) -> bool {
        let registries = &self.facts.object.spec.registries;
        registries.iter().all(|registry| self.holds_live(registry))
    }

    fn holds_live(&self, registry: &Registry) -> bool {
        let Some(secret) = &self.api.secret else {
            return false;
        };
        let payload = payload(secret);
        let password = payload["auths"][&registry.server]["password"]
            .as_str()
            .unwrap_or_default();
        annotation(secret, OWNER_ANNOTATION) == Some("acr")
            && is_within(password, registry)
            && self
                .issued
                .get(password)
                .is_some_and(|life| self.now < life.end)
    }
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look")
            .field("minted", &self.minted())
            .field("calls", &self.calls)
            .field("statuses", &self.statuses)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

pub(super) fn registry(server: &str) -> Registry {
    Registry {
        server: server.to_owned(),
        repositories: None,
    }
}
