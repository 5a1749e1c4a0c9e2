//! Where assertions come from.

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::SignedDuration;

use crate::credential::{AssertionClaims, Cause, Hop, MintError, Token};

/// A `ServiceAccount` token holds a few kilobytes; a file of another size is something else.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Supplies the Kubernetes `ServiceAccount` token that Entra accepts as `client_assertion`.
#[async_trait]
pub trait AssertionSource: Send + Sync {
    /// A token that is valid now. Called once per request to Entra.
    async fn assertion(&self) -> Result<Token, MintError>;

    /// How long an Entra token that was got with it may be shared, if less than others.
    fn max_cache_life(&self) -> Option<SignedDuration> {
        None
    }

    /// What the present assertion says of itself.
    async fn claims(&self) -> Result<AssertionClaims, MintError> {
        let assertion = self.assertion().await?;
        AssertionClaims::of(&assertion)
            .ok_or_else(|| MintError::new(Hop::Assertion, Cause::NoAssertion))
    }
}

/// The projected token file of our own pod. The kubelet renews it, so it is read again each time.
#[derive(Clone, Debug)]
pub struct AssertionFile {
    path: PathBuf,
}

// === impl AssertionFile ===

impl AssertionFile {
    /// Of the file that `AZURE_FEDERATED_TOKEN_FILE` names.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn read(&self) -> std::io::Result<String> {
        let size = tokio::fs::metadata(&self.path).await?.len();
        if size > SIZE_LIMIT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        tokio::fs::read_to_string(&self.path).await
    }
}

#[async_trait]
impl AssertionSource for AssertionFile {
    async fn assertion(&self) -> Result<Token, MintError> {
        match self.read().await {
            Ok(text) if !text.trim().is_empty() => Ok(Token::new(text.trim().to_owned())),
            Ok(_) => Err(MintError::new(Hop::Assertion, Cause::NoAssertion)),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot read the ServiceAccount token file");
                Err(MintError::new(Hop::Assertion, Cause::NoAssertion))
            }
        }
    }
}
