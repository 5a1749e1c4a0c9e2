//! Plays the controller around `plan` and `settle`: keeps the object, its Secret and the time, and checks
//! at every look what must always hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::tokens::{is_within, limited_token, token};
use super::*;
use crate::api::AcrCredentialSpec;
use crate::credential::{Claims, Credential, Subject};

/// How long the minted token lives, or why there is none.
pub(super) type Answer = Result<SignedDuration, MintError>;

pub(super) struct World {
    pub object: AcrCredential,
    pub settings: Settings,
    pub federation: Result<Federation, MintError>,
    pub service_account: ServiceAccountState,
    pub refresh: Option<RefreshRequest>,
    /// As the API server has it.
    pub secret: Option<Secret>,
    /// What the controller takes it for, until a conflict shows that it is wrong.
    pub believed: Option<SecretState>,
    /// Whether the API server refuses writes.
    pub refuses_writes: bool,
    pub now: Timestamp,
    pub attempts: Attempts,
    /// Lifetimes of the tokens that this process knows.
    pub known: BTreeMap<String, Lifetime>,
    version: u32,
    looks: u32,
}

/// What came of one look.
pub(super) struct Look {
    pub plan: Plan,
    pub writes: Vec<SecretWrite>,
    pub settled: Settled,
}

impl Look {
    /// The registries that were minted for.
    pub fn minted(&self) -> Vec<&str> {
        let servers = self.plan.mints().map(|mint| &mint.entitlement.server);
        servers
            .map(crate::credential::LoginServer::as_str)
            .collect()
    }

    /// Whether nothing was minted and nothing written.
    pub fn is_idle(&self) -> bool {
        self.minted().is_empty() && self.writes.is_empty()
    }

    pub fn note(&self) -> Option<&str> {
        self.settled.note.as_ref().map(|note| note.reason.as_str())
    }
}

impl World {
    /// An object that was just created, of a namespace that the policy allows.
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
        object.metadata.creation_timestamp = Some(Time(now));
        let client = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        let tenant = "22222222-2222-2222-2222-222222222222".parse().unwrap();
        Self {
            object,
            settings: Settings {
                policy: Policy::new(vec![PolicyRule::new("demo", "*")]),
                clouds: Cloud::ALL.into_iter().map(EnabledCloud::from).collect(),
                controller: Some((client, tenant)),
                impersonation_audiences: vec![
                    "api://AzureCRTokenExchange".into(),
                    "api://AzureADTokenExchange".into(),
                ],
                default_tenant_id: None,
                refresh_fraction: 0.5,
                secret_metadata_prefixes: vec![],
            },
            federation: Ok(Federation {
                issuer: "https://issuer.example/".into(),
                subject: Subject {
                    name: "system:serviceaccount:acrcred-system:acrcred".into(),
                    service_account_uid: "sa-uid".into(),
                    audience: "api://AzureADTokenExchange".into(),
                },
            }),
            service_account: ServiceAccountState::Unread,
            refresh: None,
            secret: None,
            believed: None,
            refuses_writes: false,
            now,
            attempts: Attempts::new(),
            known: BTreeMap::new(),
            version: 0,
            looks: 0,
        }
    }

    /// One whose credentials were all minted just now.
    pub fn ready(registries: &[&str]) -> Self {
        let mut world = Self::of(registries);
        world.look();
        assert_eq!(conditions(world.status()), READY);
        world
    }

    pub fn status(&self) -> &AcrCredentialStatus {
        self.object
            .status
            .as_ref()
            .expect("nothing looked at the object yet")
    }

    pub fn secret(&mut self) -> &mut Secret {
        self.secret.as_mut().expect("there is no Secret")
    }

    pub fn advance(&mut self, by: SignedDuration) {
        self.now += by;
    }

    /// A process that remembers nothing.
    pub fn restart(&mut self) {
        self.attempts.clear();
        self.known.clear();
    }

    /// The operator sets `--registry-audience`.
    pub fn ask_for(&mut self, audience: &str) {
        let clouds = self.settings.clouds.clone();
        self.settings.clouds = clouds.with_audience(&Audience::new(audience));
    }

    /// The user changes the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut AcrCredentialSpec)) {
        change(&mut self.object.spec);
        *self.object.metadata.generation.get_or_insert_default() += 1;
    }

    pub fn forbid_everything(&mut self) {
        self.settings.policy = Policy::default();
    }

    pub fn plan(&self) -> Plan {
        plan(&self.observed(None), self.now)
    }

    /// A look at which every mint succeeds.
    pub fn look(&mut self) -> Look {
        self.look_at(|_| Ok(LIFE))
    }

    /// A look at which every mint fails.
    pub fn look_failing(&mut self, error: MintError) -> Look {
        self.look_at(|_| Err(error))
    }

    /// A look, with an answer for each registry that is minted for.
    pub fn look_at(&mut self, mut answer: impl FnMut(&str) -> Answer) -> Look {
        self.looks += 1;
        assert!(self.looks < 2_000, "a hot loop");
        let plan = self.plan();
        let mut outcomes = Outcomes::new();
        for mint in plan.mints() {
            let Entitlement { server, scope } = &mint.entitlement;
            let outcome = answer(server.as_str()).map(|life| self.credential(life, scope));
            outcomes.insert(server.clone(), outcome);
        }
        let secret = self.observed(None).secret;
        if let Some(request) = &mut self.refresh {
            request.serve(&outcomes, &secret);
        }
        let (mut writes, mut refused, mut rounds) = (Vec::new(), None, 0);
        let settled = loop {
            let settled = settle(&self.observed(refused.clone()), &plan, &outcomes, self.now);
            let Some(write) = &settled.write else {
                break settled;
            };
            // As many as the controller makes before it steps back.
            rounds += 1;
            assert!(rounds < 5, "writes without end: {write:?}");
            writes.push(write.clone());
            if self.refuses_writes {
                let (reason, message) = (Reason::Forbidden, "no".to_owned());
                refused = Some(Refusal { reason, message });
            } else if self.write(write) {
                self.known
                    .extend(outcomes.values().flatten().map(|credential| {
                        (
                            credential.token.digest().as_str().to_owned(),
                            credential.lifetime,
                        )
                    }));
            } else {
                writes.pop();
                self.believed = None;
            }
        };
        self.attempts.clone_from(&settled.attempts);
        if let Some(status) = &settled.status {
            self.object.status = Some(status.clone());
        }
        if let SecretState::Present(snapshot) = self.observed(None).secret {
            self.known = snapshot.lifetimes();
        }
        self.check(&plan, &outcomes, &settled, refused.as_ref());
        Look {
            plan,
            writes,
            settled,
        }
    }

    /// Looks when the last look asked for it, with an answer for each mint.
    pub fn wake(&mut self, last: &Look, answer: impl FnMut(&str) -> Answer) -> Look {
        let wake_at = last
            .settled
            .wake_at
            .expect("nothing asked for another look");
        self.now = self.now.max(wake_at);
        self.look_at(answer)
    }

    pub fn observed(&self, refused: Option<Refusal>) -> Observed<'_> {
        let of = |secret: &Secret| {
            SecretState::Present(Box::new(Snapshot::of(secret, &self.known, self.now)))
        };
        let actual = || self.secret.as_ref().map_or(SecretState::Absent, of);
        Observed {
            object: &self.object,
            settings: &self.settings,
            federation: self.federation.clone(),
            service_account: self.service_account.clone(),
            issuer: None,
            refresh: self.refresh.clone(),
            secret: self.believed.clone().unwrap_or_else(actual),
            refused,
            owner_reference_refused: false,
            attempts: self.attempts.clone(),
        }
    }

    fn credential(&mut self, life: SignedDuration, scope: &Scope) -> Credential {
        self.version += 1;
        let (iat, exp) = (self.now, self.now + life);
        let token = match scope {
            Scope::Registry => token(self.version, Some(iat), exp),
            Scope::Repositories(_) => limited_token(self.version, iat, exp, scope.names()),
        };
        let lifetime = Lifetime::received(Claims::parse(token.expose()).unwrap(), self.now);
        Credential {
            token,
            lifetime,
            received_at: self.now,
        }
    }

    /// What the API server does with a write; false on a conflict.
    fn write(&mut self, write: &SecretWrite) -> bool {
        self.version += 1;
        let version = Some(self.version.to_string());
        let secret = match (write, &mut self.secret) {
            (SecretWrite::Create(new), there @ None) => {
                let secret = there.insert((**new).clone());
                secret.metadata.uid = Some(format!("secret-{}", self.version));
                secret
            }
            (SecretWrite::Apply(applied), Some(there))
                if applied.metadata.uid == there.metadata.uid
                    && applied.metadata.resource_version == there.metadata.resource_version =>
            {
                merge(there, applied);
                there
            }
            (SecretWrite::Remove(removal), Some(there))
                if Some(&removal.uid) == there.metadata.uid.as_ref()
                    && Some(&removal.resource_version)
                        == there.metadata.resource_version.as_ref() =>
            {
                let metadata = &mut there.metadata;
                metadata
                    .labels
                    .get_or_insert_default()
                    .retain(|key, _| !removal.labels.contains(key));
                let annotations = metadata.annotations.get_or_insert_default();
                annotations.retain(|key, _| !removal.annotations.contains(key));
                there
            }
            _ => return false,
        };
        secret.metadata.resource_version = version;
        self.believed = None;
        true
    }

    /// What holds after every look.
    fn check(
        &self,
        plan: &Plan,
        outcomes: &Outcomes,
        settled: &Settled,
        refusal: Option<&Refusal>,
    ) {
        let again = settle(&self.observed(refusal.cloned()), plan, outcomes, self.now);
        assert_eq!(again.status, None, "the status does not settle");
        assert_eq!(again.note, None, "an event twice");
        let status = conditions(self.status());
        let has = |condition: &str| status.iter().any(|c| c.starts_with(condition));
        let ready = has("Ready=True");
        assert_ne!(ready, has("Ready=False"), "{status:?}");
        assert!(
            !(ready && (has("Stalled") || has("Reconciling"))),
            "{status:?}"
        );
        assert!(!(has("Stalled") && has("Reconciling")), "{status:?}");
        assert!(ready || !has("RefreshFailing"), "{status:?}");
        let registries = &self.object.spec.registries;
        let live = registries.iter().all(|registry| self.holds_live(registry));
        let is_refused =
            |(_, decision): &(String, Decision)| matches!(decision, Decision::Refuse(_));
        if self.believed.is_none() {
            assert!(
                live || !ready,
                "ready without a live credential: {status:?}"
            );
            let unhindered = plan.blocked.is_none() && !plan.registries.iter().any(is_refused);
            assert!(
                ready || !live || !unhindered,
                "live but not ready: {status:?}"
            );
        }
        let next = self.plan();
        let acts =
            |(_, d): &(String, Decision)| matches!(d, Decision::Mint(_) | Decision::Fail(..));
        let acts = next.registries.iter().any(acts);
        let is_due = settled.wake_at.is_some_and(|at| at <= self.now);
        if refusal.is_some() {
            assert!(!is_due, "a refused write is tried again without a pause");
        } else {
            assert_eq!(
                is_due, acts,
                "woken without a need, or not woken: {settled:?}"
            );
        }
        self.check_limits(plan, refusal);
        let said = format!("{plan:?} {settled:?} {:?}", self.object.status);
        for host in self.secret.iter().flat_map(hosts) {
            let password =
                payload(self.secret.as_ref().unwrap())["auths"][&host]["password"].clone();
            assert!(
                !said.contains(password.as_str().unwrap_or("?????")),
                "a token is shown"
            );
        }
    }

    /// No entry of our Secret is wider than its registry in the spec, if we could write it.
    fn check_limits(&self, plan: &Plan, refusal: Option<&Refusal>) {
        let Some(secret) = &self.secret else { return };
        let annotated = annotation(secret, OWNER_UID_ANNOTATION) == Some("uid-1");
        if !annotated || plan.blocked.is_some() || refusal.is_some() || self.believed.is_some() {
            return;
        }
        for registry in &self.object.spec.registries {
            let password = &payload(secret)["auths"][&registry.server]["password"];
            let fits = |token| is_within(token, registry);
            assert!(
                password.as_str().is_none_or(fits),
                "wider than {registry:?}"
            );
        }
    }

    /// Whether the Secret is ours and holds a live token for `host` that we minted, told without the
    /// code under test.
    fn holds_live(&self, registry: &Registry) -> bool {
        let host = &registry.server;
        let Some(secret) = &self.secret else {
            return false;
        };
        let payload = payload(secret);
        let Some(password) = payload["auths"][host]["password"].as_str() else {
            return false;
        };
        let token = Token::new(password.to_owned());
        let minted: Value = annotation(secret, MINTED_ANNOTATION)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        minted["registries"][host]["token"].as_str() == Some(token.digest().as_str())
            && is_within(token.expose(), registry)
            && self
                .known
                .get(token.digest().as_str())
                .is_some_and(|life| self.now < life.end)
    }
}

pub(super) fn registry(server: &str) -> Registry {
    Registry {
        server: server.to_owned(),
        repositories: None,
    }
}
