//! Entra's refusals: number, status, OAuth error and text.
//!
//! Trace and correlation ids, the time, the line ends and the presence of `error_uri` differ on every answer, so that a client that
//! compares or stores the text fails its test.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::journal::Entry;
use crate::random::{coin, guid};
use crate::reply::{Reply, json as json_reply};

/// A refusal.
#[derive(Clone, Debug)]
pub struct EntraError {
    /// The AADSTS number.
    pub number: u32,
    status: StatusCode,
    error: &'static str,
    sentence: String,
}

impl EntraError {
    /// The refusal with that number, in the status and error that were seen with it.
    pub fn new(number: u32, sentence: impl Into<String>) -> Self {
        let (status, error) = match number {
            70_003 => (400, "unsupported_grant_type"),
            700_016 => (400, "unauthorized_client"),
            500_011 | 50_001 => (400, "invalid_resource"),
            70_011 | 700_022 => (400, "invalid_scope"),
            700_211 | 700_213 | 7_002_138 | 700_024 | 700_027 | 7_000_112 | 7_000_215
            | 7_000_218 => (401, "invalid_client"),
            _ => (400, "invalid_request"),
        };
        Self {
            number,
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            error,
            sentence: sentence.into(),
        }
    }

    /// A refusal with any status, for a fault.
    pub fn injected(number: u32, status: StatusCode, sentence: &str) -> Self {
        let error = if status.is_server_error() {
            "temporarily_unavailable"
        } else {
            "invalid_request"
        };
        Self {
            number,
            status,
            error,
            sentence: sentence.to_owned(),
        }
    }

    /// The same refusal in the other pair of status and error that the federation family was seen with.
    #[must_use]
    pub fn swapped(mut self) -> Self {
        if self.number.to_string().starts_with("70021") || self.number == 7_002_138 {
            (self.status, self.error) = if self.status == StatusCode::UNAUTHORIZED {
                (StatusCode::BAD_REQUEST, "invalid_request")
            } else {
                (StatusCode::UNAUTHORIZED, "invalid_client")
            };
        }
        self
    }

    /// The answer, noted in the journal.
    pub fn reply(&self, entry: &mut Entry) -> Reply {
        entry.error = Some(format!("AADSTS{}", self.number));
        let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let (trace, correlation) = (guid(), guid());
        let gap = if coin() { " " } else { "\r\n" };
        let mut content = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {}{gap}Trace ID: {trace}{gap}Correlation ID: {correlation}{gap}Timestamp: {now}",
                self.number, self.sentence
            ),
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
        });
        if coin() {
            content["error_uri"] =
                json!(format!("https://{}/error?code={}", entry.host, self.number));
        }
        json_reply(self.status, &content)
    }
}
