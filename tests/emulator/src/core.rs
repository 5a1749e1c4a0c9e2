//! What every listener and every handler shares.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, RwLock};

use anyhow::Context as _;

use crate::clock::Clock;
use crate::distribution::Distributions;
use crate::fault::Faults;
use crate::journal::Journal;
use crate::jwks::JwksCache;
use crate::keys::Keys;
use crate::state::State;
use crate::tap::Tap;
use crate::tls::Authority;

/// The emulator's inside.
#[derive(Debug)]
pub struct Core {
    /// Time.
    pub clock: Clock,
    /// What exists.
    pub state: RwLock<State>,
    /// What was asked.
    pub journal: Journal,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Signing keys.
    pub keys: Keys,
    /// Keys of the clusters.
    pub jwks: JwksCache,
    /// Registry processes.
    pub distributions: Distributions,
    /// Certificates.
    pub authority: Authority,
    /// OAuth requests of each registry in the minute that began then (emulator seconds), by first login server.
    pub oauth_windows: Mutex<HashMap<String, (i64, u32)>>,
    /// Uses of each flapping federated credential, by client id, issuer and subject.
    pub flaps: Mutex<HashMap<(String, String, String), u32>>,
    /// The tokens themselves, where a test in this process asked for them.
    pub tap: Option<Tap>,
}

impl Core {
    /// A core over the given state, with new keys and a new CA.
    pub async fn new(
        state: State,
        dir: PathBuf,
        registry_binary: PathBuf,
        tap: Option<Tap>,
    ) -> anyhow::Result<Self> {
        state.check()?;
        Ok(Self {
            clock: Clock::default(),
            state: RwLock::new(state),
            journal: Journal::default(),
            faults: Faults::default(),
            keys: Keys::generate().await?,
            jwks: JwksCache::default(),
            distributions: Distributions::new(dir, registry_binary),
            authority: Authority::new()?,
            oauth_windows: Mutex::default(),
            flaps: Mutex::default(),
            tap,
        })
    }

    /// Runs `change` on a copy of the state, and puts it in force if the result can exist.
    pub fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> anyhow::Result<R> {
        let mut state = self.state.write().unwrap();
        let mut next = state.clone();
        let result = change(&mut next);
        next.check()?;
        *state = next;
        Ok(result)
    }
}

impl Core {
    /// Invalidates every token that the registry has issued; returns the new epoch.
    pub fn raise_epoch(&self, login_server: &str) -> anyhow::Result<u64> {
        let mut state = self.state.write().unwrap();
        let registry = state.registries.iter_mut().find(|r| r.serves(login_server));
        let registry = registry.with_context(|| format!("no registry {login_server}"))?;
        registry.credential_epoch += 1;
        Ok(registry.credential_epoch)
    }
}
