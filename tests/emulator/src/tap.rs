//! The tokens themselves, for a test that looks for them where they must not be.

use std::fmt;
use std::sync::{Arc, Mutex};

/// Every token that was presented or issued, as it was. It exists only where a test in this process asked for it
/// ([`Options::keep_tokens`](crate::Options::keep_tokens)); it is never logged, journalled or served.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<String>>>);

impl Tap {
    /// Keeps a token.
    pub fn keep(&self, token: &str) {
        self.0.lock().unwrap().push(token.to_owned());
    }

    /// All of them, oldest first, each once.
    pub fn tokens(&self) -> Vec<String> {
        let mut tokens = Vec::new();
        for token in self.0.lock().unwrap().iter() {
            if !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        tokens
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(redacted)")
    }
}
