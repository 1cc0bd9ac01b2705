//! A fact about the host, or the reason why it is not known. Never a 0 in place of a missing value.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A value, or `null` with a reason.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Known<T> {
    /// The value, if it could be read.
    pub value: Option<T>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl<T> Known<T> {
    /// A value that was read.
    pub fn is(value: T) -> Known<T> {
        Known { value: Some(value), reason: None }
    }

    /// No value, because of `reason`.
    pub fn missing(reason: impl Into<String>) -> Known<T> {
        Known { value: None, reason: Some(reason.into()) }
    }

    /// The value with `change` applied.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Known<U> {
        Known { value: self.value.map(change), reason: self.reason }
    }
}

impl<T, E: fmt::Display> From<Result<T, E>> for Known<T> {
    fn from(result: Result<T, E>) -> Known<T> {
        match result {
            Ok(value) => Known::is(value),
            Err(error) => Known::missing(error.to_string()),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, &self.reason) {
            (Some(value), _) => value.fmt(f),
            (None, Some(reason)) => write!(f, "not known: {reason}"),
            (None, None) => f.write_str("not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_is_null_and_says_why() {
        let json = serde_json::to_string(&Known::<u64>::missing("no such file")).unwrap();
        assert_eq!(json, r#"{"value":null,"reason":"no such file"}"#);
        assert_eq!(serde_json::to_string(&Known::is(0)).unwrap(), r#"{"value":0}"#);
    }
}
