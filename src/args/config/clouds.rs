//! Which clouds are enabled, and where their identities sign in.

use std::collections::BTreeSet;
use std::path::Path;

use super::{ConfigError, Environment, narrowing};
use crate::args::environment_file;
use crate::credential::{Authority, Cloud, Clouds, EnabledCloud};

/// The cloud of the environment file comes first: under its suffix it counts, whatever else is enabled.
pub(super) fn enabled(
    listed: Vec<Option<Cloud>>,
    env: &Environment<'_>,
) -> Result<Clouds, ConfigError> {
    let custom = env
        .get("AZURE_ENVIRONMENT_FILEPATH")
        .map(|path| environment_file::read(Path::new(&path)))
        .transpose()?;
    let override_of = authority_override(env, custom.as_ref())?;
    let listed = narrowing("clouds", listed)?;
    let built_in = match (&custom, &override_of) {
        _ if !listed.is_empty() => listed,
        (Some(_), _) => Vec::new(),
        (None, Some((cloud, _))) => vec![*cloud],
        (None, None) => vec![Cloud::AzurePublicCloud],
    };
    let built_in = BTreeSet::from_iter(built_in).into_iter().map(|cloud| {
        let authority = match &override_of {
            Some((of, authority)) if *of == cloud => authority.clone(),
            _ => cloud.default_authority(),
        };
        EnabledCloud::built_in(cloud, authority)
    });
    Ok(custom.into_iter().chain(built_in).collect())
}

/// Which of Azure's own clouds `AZURE_AUTHORITY_HOST` speaks of. Beside an environment file, the webhook
/// sets it to that file's authority: then it speaks of none.
fn authority_override(
    env: &Environment<'_>,
    custom: Option<&EnabledCloud>,
) -> Result<Option<(Cloud, Authority)>, ConfigError> {
    let Some(url) = env.get("AZURE_AUTHORITY_HOST") else {
        return Ok(None);
    };
    match (Authority::parse(&url), custom) {
        (Ok(known), _) => Ok(Some(known)),
        (Err(error), None) => Err(error.into()),
        (Err(_), Some(cloud)) => match Authority::custom(&url) {
            Ok(authority) if authority == cloud.authority => Ok(None),
            _ => Err(ConfigError::AuthorityConflict),
        },
    }
}
