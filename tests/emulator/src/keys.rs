//! The emulator's own signing keys.
//!
//! Three separate ones: a registry process knows the access-token key alone, so that a refresh token or an Entra token presented as
//! a Bearer fails there by its signature, as it does at Azure.

use std::sync::{Arc, RwLock};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::jwt::{Jwk, Parsed, SigningKey};

/// Which of the keys.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KeyName {
    /// Signs Entra access tokens.
    Entra,
    /// Signs ACR refresh tokens.
    Refresh,
    /// Signs ACR access tokens; never rotated, since running registry processes read it once.
    Access,
}

#[derive(Debug)]
struct Ring {
    current: Arc<SigningKey>,
    accepted: Vec<Jwk>,
}

impl Ring {
    fn new(key: SigningKey) -> Self {
        let accepted = vec![key.public().clone()];
        Self {
            current: Arc::new(key),
            accepted,
        }
    }
}

/// The current key of each name, and the public halves that still count.
#[derive(Debug)]
pub struct Keys {
    entra: RwLock<Ring>,
    refresh: RwLock<Ring>,
    access: RwLock<Ring>,
}

impl Keys {
    /// Generates all three at once, on blocking threads.
    pub async fn generate() -> anyhow::Result<Self> {
        let make = || async { tokio::task::spawn_blocking(SigningKey::generate).await? };
        let (entra, refresh, access) = tokio::try_join!(make(), make(), make())?;
        Ok(Self {
            entra: RwLock::new(Ring::new(entra)),
            refresh: RwLock::new(Ring::new(refresh)),
            access: RwLock::new(Ring::new(access)),
        })
    }

    fn ring(&self, name: KeyName) -> &RwLock<Ring> {
        match name {
            KeyName::Entra => &self.entra,
            KeyName::Refresh => &self.refresh,
            KeyName::Access => &self.access,
        }
    }

    /// Signs with the current key.
    pub fn sign(&self, name: KeyName, claims: &Value) -> String {
        let key = Arc::clone(&self.ring(name).read().unwrap().current);
        key.sign(claims)
    }

    /// The token taken apart, if one of the accepted keys of that name signed it. Time is not looked at.
    pub fn verify(&self, name: KeyName, token: &str) -> anyhow::Result<Parsed> {
        let parsed = Parsed::read(token)?;
        let ring = self.ring(name).read().unwrap();
        let found = ring.accepted.iter().any(|key| key.verifies(&parsed));
        found.then_some(parsed).context("signature")
    }

    /// The public halves, for a discovery document or a registry's configuration.
    pub fn public(&self, name: KeyName) -> Vec<Jwk> {
        self.ring(name).read().unwrap().accepted.clone()
    }

    /// Puts a new key in force. Tokens of the old one stay good only with `keep_old`.
    pub async fn rotate(&self, name: KeyName, keep_old: bool) -> anyhow::Result<()> {
        anyhow::ensure!(name != KeyName::Access, "the access key is not rotated");
        let key = tokio::task::spawn_blocking(SigningKey::generate).await??;
        let mut ring = self.ring(name).write().unwrap();
        let mut next = Ring::new(key);
        if keep_old {
            next.accepted.append(&mut ring.accepted);
        }
        *ring = next;
        Ok(())
    }
}
