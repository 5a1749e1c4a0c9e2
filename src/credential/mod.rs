//! What a registry credential is: tokens, hosts, clouds, lifetimes, failures and the
//! `.dockerconfigjson` that carries them. Pure; imports nothing else of this crate.

mod catalogue;
mod cloud;
mod clouds;
mod docker_config;
mod enabled_cloud;
#[cfg(test)]
mod fuzz;
mod identity;
mod issued_for;
mod lifetime;
mod login_server;
mod mint_error;
pub mod names;
mod scope;
mod token;

pub use catalogue::{Failure, When, Who, catalogue};
pub use cloud::{Authority, AuthorityError, Cloud, CustomAuthorityError};
pub use clouds::Clouds;
pub use docker_config::DockerConfig;
pub use enabled_cloud::{EnabledCloud, RegistrySuffix, RegistrySuffixError};
pub use identity::{
    AssertionClaims, Audience, ClientId, Identity, InvalidId, Principal, Subject, TenantId,
};
pub use issued_for::{Credential, IssuedFor, MintRequest};
pub(crate) use lifetime::saturating_add;
pub use lifetime::{CLOCK_STEP, Claims, JITTER_FRACTION, Lifetime, MAX_LIFE};
pub use login_server::{LoginServer, LoginServerError};
pub use mint_error::{Cause, Class, Hop, MintError, Missing, RETRY_AFTER_CAP};
pub use scope::{Repositories, RepositoriesError, Scope};
pub use token::{Digest, Token};
