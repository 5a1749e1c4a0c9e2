//! The file that `AZURE_ENVIRONMENT_FILEPATH` names: a cloud that is none of Azure's own, such as Azure
//! Stack or an air-gapped one. Tools of Azure's in Kubernetes read the same file (cloud-provider-azure,
//! `pkg/azclient/cloud.go`); what else it says is left to them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::{Map, Value};

use super::value;
use crate::credential::{
    Audience, Authority, CustomAuthorityError, EnabledCloud, RegistrySuffixError,
};

/// Such files have a few kilobytes.
const MAX_BYTES: u64 = 256 * 1024;

const RESOURCE_MANAGER: &str = "resourceManagerEndpoint";
const AUTHORITY: &str = "activeDirectoryEndpoint";
const SUFFIX: &str = "containerRegistryDNSSuffix";

/// Indicates why a file describes no cloud. Nothing of its content is told, nor its path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentFileError {
    /// It cannot be read.
    #[error(
        "names a file that cannot be read ({0}): mount the file that describes the cloud and set its path, or unset the variable"
    )]
    Unreadable(io::ErrorKind),
    /// It is too large to be one.
    #[error(
        "names a file of more than {limit} KiB: set the path of the file that describes the cloud",
        limit = MAX_BYTES / 1024
    )]
    TooLarge,
    /// It is no JSON. The place counts from 1.
    #[error(
        "names a file that is not JSON (line {line}, column {column}): correct it, or set another path"
    )]
    NotJson {
        /// Where it ceases to be.
        line: usize,
        /// Likewise.
        column: usize,
    },
    /// It is JSON, but no object.
    #[error(
        "names a file that holds no JSON object: set in it {RESOURCE_MANAGER}, {AUTHORITY} and {SUFFIX}"
    )]
    NotAnObject,
    /// A field is not there, or empty.
    #[error("names a file without {field}: set it to {example}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What it looks like.
        example: &'static str,
    },
    /// A field is not text.
    #[error("names a file whose {field} is not text: set it to {example}")]
    NotText {
        /// The field.
        field: &'static str,
        /// What it looks like.
        example: &'static str,
    },
    /// The audience is no URL.
    #[error(
        "names a file whose {RESOURCE_MANAGER} is not an https URL: set it to {RESOURCE_MANAGER_EXAMPLE}"
    )]
    ResourceManager,
    /// The authority cannot be used.
    #[error("names a file whose {AUTHORITY} {0}: set it to {AUTHORITY_EXAMPLE}")]
    Authority(CustomAuthorityError),
    /// The suffix cannot be used.
    #[error("names a file whose {SUFFIX} {0}: set it to the domain of the cloud's registries")]
    Suffix(RegistrySuffixError),
}

const RESOURCE_MANAGER_EXAMPLE: &str = "a URL such as https://management.cloud.example/";
const AUTHORITY_EXAMPLE: &str = "a URL such as https://login.cloud.example/";
const SUFFIX_EXAMPLE: &str = "a domain such as azurecr.cloud.example";

/// The cloud that the file at `path` describes.
pub(super) fn read(path: &Path) -> Result<EnabledCloud, EnvironmentFileError> {
    let unreadable = |error: io::Error| EnvironmentFileError::Unreadable(error.kind());
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let size = file.take(MAX_BYTES + 1).read_to_end(&mut text);
    if u64::try_from(size.map_err(unreadable)?).is_ok_and(|size| size <= MAX_BYTES) {
        parse(&text)
    } else {
        Err(EnvironmentFileError::TooLarge)
    }
}

fn parse(text: &[u8]) -> Result<EnabledCloud, EnvironmentFileError> {
    // Editors of Windows write a byte order mark, and Azure's own readers of this file forgive it.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let document: Value =
        serde_json::from_slice(text).map_err(|error| EnvironmentFileError::NotJson {
            line: error.line(),
            column: error.column(),
        })?;
    let fields = document
        .as_object()
        .ok_or(EnvironmentFileError::NotAnObject)?;
    let resource_manager = field(fields, RESOURCE_MANAGER, RESOURCE_MANAGER_EXAMPLE)?;
    let authority = field(fields, AUTHORITY, AUTHORITY_EXAMPLE)?;
    let suffix = field(fields, SUFFIX, SUFFIX_EXAMPLE)?;
    Ok(EnabledCloud {
        suffix: suffix.parse().map_err(EnvironmentFileError::Suffix)?,
        authority: Authority::custom(authority).map_err(EnvironmentFileError::Authority)?,
        audience: resource_manager_audience(resource_manager)
            .ok_or(EnvironmentFileError::ResourceManager)?,
    })
}

fn field<'a>(
    fields: &'a Map<String, Value>,
    field: &'static str,
    example: &'static str,
) -> Result<&'a str, EnvironmentFileError> {
    let missing = EnvironmentFileError::Missing { field, example };
    match fields.get(field) {
        None | Some(Value::Null) => Err(missing),
        Some(Value::String(text)) if text.trim().is_empty() => Err(missing),
        Some(Value::String(text)) => Ok(text.trim()),
        Some(_) => Err(EnvironmentFileError::NotText { field, example }),
    }
}

/// The endpoint itself, since nobody can know under which name the cloud has its registries' audience. A
/// slash at its end would be a second one in the scope.
fn resource_manager_audience(endpoint: &str) -> Option<Audience> {
    let endpoint = endpoint.trim_end_matches('/');
    let audience = value::audience(endpoint).ok();
    audience.filter(|_| endpoint.starts_with("https://"))
}

#[cfg(test)]
mod tests;
