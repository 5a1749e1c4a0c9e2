//! What a registry credential is: tokens, hosts, clouds, lifetimes, failures and the
//! `.dockerconfigjson` that carries them. Pure; imports nothing else of this crate.

mod catalogue;
mod cloud;
mod clouds;
mod docker_config;
#[cfg(test)]
mod fuzz;
mod identity;
mod lifetime;
mod login_server;
mod mint_error;
mod scope;
mod token;

pub use catalogue::{Failure, When, Who, catalogue};
pub use cloud::{Authority, AuthorityError, Cloud, CustomAuthorityError, UnknownCloud};
pub use clouds::{Clouds, EnabledCloud, RegistrySuffix, RegistrySuffixError};
pub use docker_config::{DockerConfig, DockerConfigError};
pub use identity::{
    Audience, ClientId, Credential, Federation, Identity, InvalidId, Subject, TenantId,
};
pub(crate) use lifetime::saturating_add;
pub use lifetime::{Claims, ClaimsError, JITTER_FRACTION, Lifetime, MAX_LIFE};
pub use login_server::{LoginServer, LoginServerError};
pub use mint_error::{Cause, Class, Hop, MintError, Mismatch, RETRY_AFTER_CAP};
pub use scope::{Granted, Missing, Repositories, RepositoriesError, Scope};
pub use token::{Digest, Token};
