//! Secret strings that cannot be printed by accident.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// An assertion, Entra token or ACR token.
///
/// `Debug` is redacted, there is no `Display` and no `Serialize`, and the text is overwritten when
/// the last clone drops. [`Token::expose`] marks the few places that put it on a wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<Zeroizing<String>>);

/// SHA-256 in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

// === impl Token ===

impl Token {
    /// Takes ownership of the text, so that no unprotected copy stays behind.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The secret itself, for a request body or the Secret's payload only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

// === impl Digest ===

impl Digest {
    /// SHA-256 over `parts`, each preceded by its length in bytes so that no two different lists collide.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self(format!("{:x}", hasher.finalize()))
    }

    /// A number in `[0, 1)` that depends on the whole digest's input: the same input gives the same number.
    pub fn fraction(&self) -> f64 {
        let top = u32::from_str_radix(&self.0[..8], 16).unwrap_or_default();
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }

    /// Lower-case hex, 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_token() {
        let token = Token::new("s3cret".into());
        assert_eq!(
            format!("{token:?} {:#?}", Some(&token))
                .matches("s3cret")
                .count(),
            0
        );
        assert_eq!(token.expose(), "s3cret");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Digest::of_parts(["ab", "c"]), Digest::of_parts(["a", "bc"]));
        assert_eq!(Digest::of_parts(["ab", "c"]), Digest::of_parts(["ab", "c"]));
    }
}
