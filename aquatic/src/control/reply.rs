//! Replies over the control socket: one JSON object per line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Why a command has not been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// What was sent is no request.
    BadRequest,
    /// An argument of the command makes no sense.
    BadArgument,
    /// The tracker, as it is configured, has nothing that could do it.
    Unavailable,
    /// A maximum number has been reached.
    Limit,
    /// The tracker is about something that has to end first, or does not respond in time.
    Busy,
    /// It has been tried and failed.
    Failed,
}

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What has come of a request.
pub(crate) type Outcome = Result<Map<String, Value>, Failure>;

/// The members of a reply.
pub(crate) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The line of a reply.
pub(crate) fn line(outcome: Outcome) -> Vec<u8> {
    let reply = match outcome {
        Ok(mut members) => {
            members.insert("ok".to_owned(), true.into());
            Value::Object(members)
        }
        Err(Failure { code, message }) => json!({"ok": false, "error": {"code": code, "message": message}}),
    };
    let mut line = reply.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_lines() {
        let text = |outcome| String::from_utf8(line(outcome)).unwrap();
        assert_eq!(text(Ok(members(json!({"level": "info"})))), "{\"level\":\"info\",\"ok\":true}\n");
        let failure = Failure::new(ErrorCode::BadRequest, "a\nb");
        assert_eq!(
            text(Err(failure)),
            "{\"error\":{\"code\":\"bad_request\",\"message\":\"a\\nb\"},\"ok\":false}\n"
        );
    }
}
