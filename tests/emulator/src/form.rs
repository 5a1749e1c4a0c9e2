//! Form and query parameters, which may repeat.

use std::fmt;

/// Parameters in their order. Their values may be secrets and are never shown.
#[derive(Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}

impl Form {
    /// Decodes a query or a body.
    pub fn read(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The first value of that name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().find(|value| !value.is_empty())
    }

    /// Every value of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The scopes: repeated parameters and lists separated by blanks, together.
    pub fn scopes(&self) -> Vec<&str> {
        let lists = self.all("scope").into_iter();
        lists.flat_map(str::split_whitespace).collect()
    }

    /// The names, in order.
    pub fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Everything, values included: for the fault that echoes a request.
    pub fn raw(&self) -> String {
        let pairs = self.0.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join("\n")
    }
}
