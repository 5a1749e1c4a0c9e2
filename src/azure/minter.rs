//! Mints credentials, sharing tokens between objects that may share them.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::assertion::AssertionSource;
use super::cache::{Cache, Obtained};
use super::floor::Floors;
use super::transport::Transport;
use super::{entra, registry};
use crate::credential::{
    Cause, Credential, EnabledCloud, Hop, Identity, JITTER_FRACTION, Lifetime, LoginServer,
    MintError, MintRequest, Repositories, Scope,
};
use crate::process::{Clock, Metrics};

/// A shared Entra token is used until this long before its end, or a tenth of its life if that is less.
const ENTRA_MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// A shared ACR token is handed on for the jitter window and this long: the time that the objects
/// which came with the first need.
const HANDOVER: SignedDuration = SignedDuration::from_secs(30);

/// Mints credentials. Tokens live in memory only, and nothing read from the cluster ever gets in.
pub struct Minter {
    transport: Transport,
    clock: Clock,
    metrics: Metrics,
    /// Bounds the age of shared tokens; zero shares none.
    cache_max_life: SignedDuration,
    entra_tokens: Cache<SignIn>,
    refresh_tokens: Cache<(Identity, LoginServer)>,
    access_tokens: Cache<(Identity, LoginServer, Repositories)>,
    entra_floors: Floors<SignIn>,
    registry_floors: Floors<LoginServer>,
}

/// Who signs in to which cloud: the cloud has the authority and the audience.
type SignIn = (Arc<EnabledCloud>, Identity);

// === impl Minter ===

impl Minter {
    /// A minter without tokens.
    pub fn new(
        transport: Transport,
        clock: Clock,
        metrics: Metrics,
        cache_max_life: SignedDuration,
    ) -> Self {
        Self {
            transport,
            clock,
            metrics,
            cache_max_life,
            entra_tokens: Cache::new("entra"),
            refresh_tokens: Cache::new("refresh"),
            access_tokens: Cache::new("access"),
            entra_floors: Floors::new(),
            registry_floors: Floors::new(),
        }
    }

    /// An ACR token for `request`, a shared one if there is a young one. The caller has checked
    /// that the object is entitled to it: a cache hit sends no request.
    pub async fn mint(
        &self,
        request: &MintRequest,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let obtained = match &request.scope {
            Scope::Registry => self.refresh_token(request, assertions).await?,
            Scope::Repositories(repositories) => {
                let (identity, server) = (request.identity.clone(), request.server.clone());
                let key = (identity, server, repositories.clone());
                let fetch = Box::pin(self.limit(request, repositories, assertions));
                self.acr_token(&self.access_tokens, &key, request, fetch)
                    .await?
            }
        };
        Ok(obtained.credential)
    }

    /// Drops the tokens that may no longer be handed to others.
    pub fn drop_unshared(&self) {
        let now = self.clock.now();
        self.entra_tokens.drop_unshared(now);
        self.refresh_tokens.drop_unshared(now);
        self.access_tokens.drop_unshared(now);
    }

    /// A token that is limited to `repositories`, for a refresh token that all limits share.
    async fn limit(
        &self,
        request: &MintRequest,
        repositories: &Repositories,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let server = &request.server;
        self.registry_floors.check(server, self.clock.now())?;
        let key = (request.identity.clone(), server.clone());
        loop {
            let held = self.refresh_token(request, assertions).await?;
            let token = &held.credential.token;
            let call = registry::limit(&self.transport, server, repositories, token, &self.clock);
            let result = self
                .call(Hop::Token, &self.registry_floors, server, call)
                .await;
            let is_refused =
                matches!(&result, Err(error) if error.cause == Cause::InsufficientScope);
            if !is_refused || !self.evict(&self.refresh_tokens, &key, &held).await {
                return result;
            }
        }
    }

    async fn refresh_token(
        &self,
        request: &MintRequest,
        assertions: &dyn AssertionSource,
    ) -> Result<Obtained, MintError> {
        let key = (request.identity.clone(), request.server.clone());
        let fetch = Box::pin(self.exchange(request, assertions));
        self.acr_token(&self.refresh_tokens, &key, request, fetch)
            .await
    }

    async fn exchange(
        &self,
        request: &MintRequest,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let server = &request.server;
        self.registry_floors.check(server, self.clock.now())?;
        let sign_in = (server.cloud().clone(), request.identity.clone());
        loop {
            let held = self.entra_token(&sign_in, assertions).await?;
            let token = &held.credential.token;
            let call = registry::exchange(&self.transport, server, token, &self.clock);
            let result = self
                .call(Hop::Exchange, &self.registry_floors, server, call)
                .await;
            let is_refused = matches!(&result, Err(error) if error.cause == Cause::RegistryRefused);
            if !is_refused || !self.evict(&self.entra_tokens, &sign_in, &held).await {
                return result;
            }
        }
    }

    async fn entra_token(
        &self,
        sign_in: &SignIn,
        assertions: &dyn AssertionSource,
    ) -> Result<Obtained, MintError> {
        let limit = assertions.max_cache_life().unwrap_or(SignedDuration::MAX);
        let share = |lifetime: &Lifetime| usable_for(lifetime).min(limit);
        let fetch = Box::pin(async {
            self.entra_floors.check(sign_in, self.clock.now())?;
            match self.request_entra(sign_in, assertions).await {
                Err(error) if error.wants_fresh_assertion() => {
                    self.request_entra(sign_in, assertions).await
                }
                result => result,
            }
        });
        self.cached(&self.entra_tokens, sign_in, |_| true, share, fetch)
            .await
    }

    async fn request_entra(
        &self,
        sign_in: &SignIn,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let assertion = self
            .measured(Hop::Assertion, assertions.assertion())
            .await?;
        let ((cloud, identity), now) = (sign_in, self.clock.now());
        let call = entra::request_token(&self.transport, cloud, identity, assertion, now);
        self.call(Hop::Entra, &self.entra_floors, sign_in, call)
            .await
    }

    /// Throws a shared token away that a registry refused, if that is worth a call more. It may predate a change
    /// of roles, or of the registry's mode, which ends all tokens (learn.microsoft.com, "Azure ABAC repository
    /// permissions"): one fresh token tells.
    async fn evict<K: Hash + Eq + Clone>(
        &self,
        tokens: &Cache<K>,
        key: &K,
        refused: &Obtained,
    ) -> bool {
        let token = &refused.credential.token;
        !refused.fresh && tokens.evict(key, token, self.clock.now()).await
    }

    /// An ACR token, young enough for `request`.
    async fn acr_token<K: Hash + Eq + Clone>(
        &self,
        tokens: &Cache<K>,
        key: &K,
        request: &MintRequest,
        fetch: impl Future<Output = Result<Credential, MintError>>,
    ) -> Result<Obtained, MintError> {
        let is_after = |at, bound: Option<Timestamp>| bound.is_none_or(|bound| bound < at);
        let usable = |held: &Credential| {
            is_after(held.lifetime.start, request.newer_than)
                && is_after(held.received_at, request.received_after)
                && held.lifetime.is_live(self.clock.now())
        };
        self.cached(tokens, key, usable, handed_over_for, fetch)
            .await
    }

    /// A token from memory or of `fetch`, shared within what the platform administrator allows. A boxed `fetch`
    /// keeps the futures small that hold it: each would have room for it twice.
    async fn cached<K: Hash + Eq + Clone>(
        &self,
        tokens: &Cache<K>,
        key: &K,
        usable: impl Fn(&Credential) -> bool,
        share: impl Fn(&Lifetime) -> SignedDuration,
        fetch: impl Future<Output = Result<Credential, MintError>>,
    ) -> Result<Obtained, MintError> {
        let share = |lifetime: &Lifetime| share(lifetime).min(self.cache_max_life);
        let obtained = tokens
            .get_or_fetch(key, self.clock.now(), usable, share, fetch)
            .await?;
        self.metrics.token_used(tokens.kind, !obtained.fresh);
        Ok(obtained)
    }

    /// Awaits a call upstream, whose failure may ask everybody with this `key` to wait.
    async fn call<K: Hash + Eq + Clone>(
        &self,
        hop: Hop,
        floors: &Floors<K>,
        key: &K,
        call: impl Future<Output = Result<Credential, MintError>>,
    ) -> Result<Credential, MintError> {
        let result = self.measured(hop, call).await;
        result.map_err(|error| floors.raise(key, error, self.clock.now()))
    }

    async fn measured<T>(
        &self,
        hop: Hop,
        call: impl Future<Output = Result<T, MintError>>,
    ) -> Result<T, MintError> {
        let started = Instant::now();
        let result = call.await;
        let outcome = match &result {
            Ok(_) => "success",
            Err(error) => error.cause.into(),
        };
        self.metrics.minted(hop.into(), outcome, started.elapsed());
        result
    }
}

/// The age up to which an ACR token is handed to others.
fn handed_over_for(lifetime: &Lifetime) -> SignedDuration {
    lifetime.part(JITTER_FRACTION) + HANDOVER
}

/// The age up to which an Entra token is presented to registries.
fn usable_for(lifetime: &Lifetime) -> SignedDuration {
    lifetime.length() - ENTRA_MARGIN.min(lifetime.part(0.1))
}
