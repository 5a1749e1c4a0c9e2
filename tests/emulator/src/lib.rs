//! Microsoft Entra and Azure Container Registry, as far as a pull credential needs them.
//!
//! ```text
//!  client ── CONNECT login.microsoftonline.com:443 ──► proxy ─ TLS ─► entra        assertion -> Entra token
//!         ── CONNECT contoso.azurecr.io:443 ─────────► proxy ─ TLS ─► exchange     Entra token -> refresh token
//!                                                                     token        refresh token -> access token
//!                                                                     v2 ────────► a real registry process
//!  test   ── plain HTTP ─────────────────────────────► control        state, journal, faults, clock
//! ```
//!
//! Whatever honours `HTTPS_PROXY` and `SSL_CERT_FILE` (or has its own way to be told of a proxy and a CA) talks to it under the production
//! names; no client needs a code path for tests. Assertions are verified against the cluster's real key set; images are served by the real
//! CNCF distribution registry, which verifies the emulator's access tokens by itself.
//!
//! Three things to know:
//!
//! - **One emulator serves many tests at once.** Each test adds its own tenant, client id and registry, and faults and journal filters
//!   name them. Only the clock is shared: a test that moves it starts its own emulator.
//! - **It never shares code with the program under test**: a bug in both would hide.
//! - **It holds no token after the answer**: the journal knows tokens by SHA-256 alone. Only a test in the same process can ask for
//!   them ([`Options::keep_tokens`]).
//!
//! Facts that the protocol leaves open (status codes of some refusals, bodies, limits) are switches in [`state`].

pub mod clock;
pub mod cloud;
mod control;
mod core;
mod distribution;
mod emulator;
mod entra;
mod entra_error;
mod exchange;
pub mod fault;
mod federation;
mod form;
mod inject;
pub mod journal;
mod jwks;
pub mod jwt;
pub mod keys;
mod leash;
mod oauth;
mod proxy;
mod random;
pub mod registry;
mod reply;
pub mod roles;
mod scope;
mod serve;
pub mod state;
mod tap;
mod tls;
mod token;
mod upsert;
mod v2;

pub use emulator::{Emulator, Options};
