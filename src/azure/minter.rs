//! Mints credentials, sharing tokens between objects that may share them.

use std::sync::Arc;
use std::time::Instant;

use jiff::SignedDuration;

use super::assertion::AssertionSource;
use super::cache::{Cache, Obtained};
use super::eviction::Evictions;
use super::floor::Floors;
use super::transport::Transport;
use super::{entra, registry};
use crate::credential::{
    Cause, Credential, EnabledCloud, Hop, Identity, JITTER_FRACTION, Lifetime, LoginServer,
    MintError, MintRequest, Repositories, Scope, Token,
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
    entra_evictions: Evictions<SignIn>,
    refresh_evictions: Evictions<(Identity, LoginServer)>,
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
            entra_tokens: Cache::new(),
            refresh_tokens: Cache::new(),
            access_tokens: Cache::new(),
            entra_floors: Floors::new(),
            registry_floors: Floors::new(),
            entra_evictions: Evictions::new(),
            refresh_evictions: Evictions::new(),
        }
    }

    /// An ACR token for `request`, a shared one if there is a young one. The caller has checked
    /// that the object is entitled to it: a hot cache asks nobody.
    pub async fn mint(
        &self,
        request: &MintRequest,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let obtained = match &request.scope {
            Scope::Registry => self.refresh_token(request, assertions).await,
            Scope::Repositories(repositories) => {
                let (identity, server) = (request.identity.clone(), request.server.clone());
                let key = (identity, server, repositories.clone());
                let usable = |held: &Credential| self.may_hand_over(held, request);
                let fetch = self.access_token(request, repositories, assertions);
                let obtained = self
                    .access_tokens
                    .get_or_fetch(
                        &key,
                        self.clock.now(),
                        usable,
                        self.share(handed_over_for),
                        fetch,
                    )
                    .await;
                self.counted("access", obtained)
            }
        }?;
        Ok(obtained.credential)
    }

    /// A token that is limited to `repositories`, for a refresh token that all limits share.
    async fn access_token(
        &self,
        request: &MintRequest,
        repositories: &Repositories,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let server = &request.server;
        self.registry_floors.check(server, self.clock.now())?;
        let refresh = self.refresh_token(request, assertions).await?;
        let token = &refresh.credential.token;
        let result = self.limit_once(server, repositories, token).await;
        let refused = matches!(&result, Err(error) if error.cause == Cause::InsufficientScope);
        let key = (request.identity.clone(), server.clone());
        if !refused || refresh.fresh || !self.refresh_evictions.may(&key, self.clock.now()) {
            return result;
        }
        // The shared token may predate a change of roles, or of the registry's mode, which ends all
        // tokens (learn.microsoft.com, "Azure ABAC repository permissions"): one fresh token tells.
        self.refresh_tokens.evict(&key, &token.digest()).await;
        let refresh = self.refresh_token(request, assertions).await?;
        self.limit_once(server, repositories, &refresh.credential.token)
            .await
    }

    async fn limit_once(
        &self,
        server: &LoginServer,
        repositories: &Repositories,
        refresh_token: &Token,
    ) -> Result<Credential, MintError> {
        let now = || self.clock.now();
        let call = registry::limit(&self.transport, server, repositories, refresh_token, now);
        self.measured(Hop::Token, call)
            .await
            .map_err(|error| self.registry_floors.raise(server, error, self.clock.now()))
    }

    async fn refresh_token(
        &self,
        request: &MintRequest,
        assertions: &dyn AssertionSource,
    ) -> Result<Obtained, MintError> {
        let (identity, server) = (&request.identity, &request.server);
        let key = (identity.clone(), server.clone());
        let usable = |held: &Credential| self.may_hand_over(held, request);
        let fetch = self.exchange(identity, server, assertions);
        let obtained = self
            .refresh_tokens
            .get_or_fetch(
                &key,
                self.clock.now(),
                usable,
                self.share(handed_over_for),
                fetch,
            )
            .await;
        self.counted("refresh", obtained)
    }

    async fn exchange(
        &self,
        identity: &Identity,
        server: &LoginServer,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        self.registry_floors.check(server, self.clock.now())?;
        let sign_in = (server.cloud().clone(), identity.clone());
        let entra = self.entra_token(&sign_in, assertions).await?;
        let result = self.exchange_once(server, &entra.credential.token).await;
        let refused = matches!(&result, Err(error) if error.cause == Cause::RegistryRefused);
        if !refused || entra.fresh || !self.entra_evictions.may(&sign_in, self.clock.now()) {
            return result;
        }
        // The shared token may predate a change of roles: one fresh token tells.
        let digest = entra.credential.token.digest();
        self.entra_tokens.evict(&sign_in, &digest).await;
        let entra = self.entra_token(&sign_in, assertions).await?;
        self.exchange_once(server, &entra.credential.token).await
    }

    async fn exchange_once(
        &self,
        server: &LoginServer,
        entra_token: &Token,
    ) -> Result<Credential, MintError> {
        let call = registry::exchange(&self.transport, server, entra_token, || self.clock.now());
        self.measured(Hop::Exchange, call)
            .await
            .map_err(|error| self.registry_floors.raise(server, error, self.clock.now()))
    }

    async fn entra_token(
        &self,
        sign_in: &SignIn,
        assertions: &dyn AssertionSource,
    ) -> Result<Obtained, MintError> {
        let limit = assertions.max_cache_life();
        let share = self.share(move |lifetime| {
            let usable = usable_for(lifetime);
            limit.map_or(usable, |limit| limit.min(usable))
        });
        let fetch = async {
            self.entra_floors.check(sign_in, self.clock.now())?;
            let first = self.request_entra(sign_in, assertions).await;
            match first {
                Err(error) if error.wants_fresh_assertion() => {
                    self.request_entra(sign_in, assertions).await
                }
                result => result,
            }
        };
        let obtained = self
            .entra_tokens
            .get_or_fetch(sign_in, self.clock.now(), |_| true, share, fetch)
            .await;
        self.counted("entra", obtained)
    }

    /// Drops the tokens that may no longer be handed to others.
    pub fn drop_unshared(&self) {
        let now = self.clock.now();
        self.entra_tokens.drop_unshared(now);
        self.refresh_tokens.drop_unshared(now);
        self.access_tokens.drop_unshared(now);
    }

    /// How long a token is shared, within what the platform administrator allows.
    fn share(
        &self,
        limit: impl Fn(&Lifetime) -> SignedDuration,
    ) -> impl Fn(&Lifetime) -> SignedDuration {
        let longest = self.cache_max_life;
        move |lifetime| limit(lifetime).min(longest)
    }

    fn counted(
        &self,
        token: &'static str,
        obtained: Result<Obtained, MintError>,
    ) -> Result<Obtained, MintError> {
        if let Ok(obtained) = &obtained {
            self.metrics.token_used(token, !obtained.fresh);
        }
        obtained
    }

    async fn request_entra(
        &self,
        sign_in: &SignIn,
        assertions: &dyn AssertionSource,
    ) -> Result<Credential, MintError> {
        let assertion = self
            .measured(Hop::Assertion, assertions.assertion())
            .await?;
        let (cloud, identity) = sign_in;
        let now = self.clock.now();
        let call = entra::request_token(&self.transport, cloud, identity, assertion, now);
        self.measured(Hop::Entra, call)
            .await
            .map_err(|error| self.entra_floors.raise(sign_in, error, self.clock.now()))
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

    fn may_hand_over(&self, held: &Credential, request: &MintRequest) -> bool {
        let lifetime = &held.lifetime;
        request
            .newer_than
            .is_none_or(|bound| bound < lifetime.start)
            && request
                .received_after
                .is_none_or(|bound| bound < held.received_at)
            && lifetime.is_live(self.clock.now())
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
