//! A model of the API server, as far as Secrets go: versions, UIDs, the admission policy. Answers are those that real
//! API servers were seen to give.

use k8s_openapi::api::core::v1::Secret;

use super::*;

#[derive(Clone, Debug, Default)]
pub(super) struct ApiServer {
    /// What is stored.
    pub secret: Option<Secret>,
    /// The answer to every write, if it is not the usual one.
    pub refusal: Option<SecretAnswer>,
    /// Whether it refuses to set or change owner references.
    pub guards_owners: bool,
    version: u64,
}

impl ApiServer {
    /// Makes a change to the stored Secret, as another client does.
    pub fn change(&mut self, change: impl FnOnce(&mut Secret)) {
        let version = self.next_version();
        let secret = self.secret.as_mut().expect("there is no Secret");
        change(secret);
        secret.metadata.resource_version = Some(version);
    }

    /// Stores a Secret of another client under the name that acrcred wants.
    pub fn store(&mut self, mut secret: Secret) {
        let version = self.next_version();
        secret
            .metadata
            .uid
            .get_or_insert(format!("foreign-{version}"));
        secret.metadata.resource_version = Some(version);
        self.secret = Some(secret);
    }

    pub fn answer(&mut self, call: &SecretCall) -> SecretAnswer {
        if let Some(refusal) = self.refusal.as_ref().filter(|_| call.write().is_some()) {
            return refusal.clone();
        }
        let sent = call.secret().clone();
        match (&self.secret, call) {
            (Some(_), SecretCall::Create(_)) => SecretAnswer::Conflict,
            (None, SecretCall::Create(_)) => {
                let version = self.next_version();
                self.secret = Some(sent);
                let secret = self.secret.as_mut().unwrap();
                secret.metadata.uid = Some(format!("secret-{version}"));
                secret.metadata.resource_version = Some(version);
                self.stored()
            }
            (None, _) => SecretAnswer::Missing,
            (Some(stored), _) => self.put(&stored.clone(), sent, call.write().is_some()),
        }
    }

    fn put(&mut self, stored: &Secret, mut sent: Secret, is_write: bool) -> SecretAnswer {
        let (old, new) = (&stored.metadata, &sent.metadata);
        let differs =
            |sent: &Option<String>, stored: &Option<String>| sent.is_some() && sent != stored;
        if differs(&new.uid, &old.uid) || differs(&new.resource_version, &old.resource_version) {
            return SecretAnswer::Conflict;
        }
        let sends_uid = new.uid.is_some();
        let is_other_type = stored.type_ != sent.type_;
        let is_immutable = stored.immutable == Some(true);
        if (is_other_type || is_immutable) && !sends_uid {
            return SecretAnswer::Refused(Refusal::NotOwned, not_owned());
        }
        if is_immutable {
            return SecretAnswer::Refused(
                Refusal::Immutable,
                Problem {
                    reason: Reason::SecretImmutable,
                    message: "immutable".into(),
                    needs_action: true,
                },
            );
        }
        if self.guards_owners && old.owner_references != new.owner_references {
            return SecretAnswer::Refused(
                Refusal::OwnerReference,
                Problem {
                    reason: Reason::SecretWriteFailed,
                    message: "owner reference".into(),
                    needs_action: true,
                },
            );
        }
        if annotation(stored, OWNER_ANNOTATION) != annotation(&sent, OWNER_ANNOTATION) {
            return SecretAnswer::Refused(Refusal::NotOwned, not_owned());
        }
        if !is_write {
            return self.stored();
        }
        let is_going = old.deletion_timestamp.is_some();
        sent.metadata.uid.clone_from(&old.uid);
        sent.metadata
            .resource_version
            .clone_from(&old.resource_version);
        sent.metadata
            .deletion_timestamp
            .clone_from(&old.deletion_timestamp);
        if sent != *stored {
            sent.metadata.resource_version = Some(self.next_version());
        }
        self.secret = Some(sent);
        let answer = self.stored();
        if is_going {
            // Without the finalizer nothing keeps it.
            self.secret = None;
        }
        answer
    }

    fn stored(&self) -> SecretAnswer {
        let metadata = &self.secret.as_ref().expect("a Secret").metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let version = SecretVersion::new(&text(&metadata.uid), &text(&metadata.resource_version));
        let version = version.expect("a version");
        if metadata.deletion_timestamp.is_some() {
            SecretAnswer::Going(version)
        } else {
            SecretAnswer::Stored(version)
        }
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}

fn not_owned() -> Problem {
    Problem {
        reason: Reason::SecretNotOwned,
        message: "not owned".into(),
        needs_action: true,
    }
}
