//! The fields of a JSON body, taken out one by one with a sentence for each that is wrong.
//!
//! A typed reader instead of derived ones: the message names the field, and an unknown field is refused by its name.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::failure::Failure;
use crate::domain::{EnvName, IdleAfter, Invalid};

/// The object that came as a body.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. `known` are the fields there may be.
    ///
    /// # Errors
    /// `InvalidJson` when it is no JSON object, `UnknownField` for a field that is not known.
    pub fn parse(body: &[u8], known: &[&str]) -> Result<Fields, Failure> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            Failure::new(400, "InvalidJson", format!("The body is not valid JSON: {}", syntax(&error)))
        })?;
        let Value::Object(fields) = value else {
            return Err(Failure::new(400, "InvalidJson", "The body must be a JSON object"));
        };
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Failure::new(400, "UnknownField", format!("Unknown field: {}", shown(name)))),
            None => Ok(Fields(fields)),
        }
    }

    /// Whether the field is there and not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text, if it is there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::invalid(format!("{name} must be a text"))),
        }
    }

    /// A text that has to be there; `label` begins the sentence when it is not.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn required(&self, name: &str, label: &str) -> Result<&str, Failure> {
        self.text(name)?.ok_or_else(|| Failure::invalid(format!("{label} is required")))
    }

    /// What a field changes: another value, with `Some(None)` for null none any more, or nothing where it is not there.
    ///
    /// # Errors
    /// When it is no text, or cannot be parsed.
    #[expect(clippy::option_option, reason = "absent, null and a value are three things")]
    pub fn change<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<Option<T>>, Failure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(_) => Ok(Some(self.text(name)?.map(parse).transpose()?)),
        }
    }

    /// A whole number within `range`, if it is there.
    ///
    /// # Errors
    /// When it is something else or outside.
    pub fn integer(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Failure> {
        let wrong = || {
            Failure::invalid(format!(
                "{name} must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        };
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
                number.map(Some).ok_or_else(wrong)
            }
        }
    }

    /// A number within `range`, if it is there.
    ///
    /// # Errors
    /// When it is something else or outside.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Failure> {
        let wrong =
            || Failure::invalid(format!("{name} must be a number from {} to {}", range.start(), range.end()));
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().filter(|n| range.contains(n)).map(Some).ok_or_else(wrong),
        }
    }

    /// A list of at most `max` texts, if it is there.
    ///
    /// # Errors
    /// When it is something else, is longer, or an entry cannot be parsed.
    pub fn list<T>(
        &self,
        name: &str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<Vec<T>>, Failure> {
        let items = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) if items.len() <= max => items,
            Some(_) => return Err(Failure::invalid(format!("{name} must be a list of at most {max} texts"))),
        };
        let item = |item: &Value| {
            let text =
                item.as_str().ok_or_else(|| Failure::invalid(format!("{name} must be a list of texts")))?;
            Ok(parse(text)?)
        };
        items.iter().map(item).collect::<Result<_, Failure>>().map(Some)
    }

    /// A map of environment variables, if it is there; null takes a variable away.
    ///
    /// # Errors
    /// When it is something else, or a name or value cannot be one.
    pub fn env(&self) -> Result<Option<BTreeMap<EnvName, Option<String>>>, Failure> {
        let map = match self.0.get("env") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(Failure::invalid("env must be an object of names and texts")),
        };
        let mut env = BTreeMap::new();
        for (name, value) in map {
            let name = EnvName::parse(name)?;
            let value = match value {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                _ => {
                    return Err(Failure::invalid(format!(
                        "env: the value of {} must be a text",
                        name.as_str()
                    )));
                }
            };
            env.insert(name, value);
        }
        Ok(Some(env))
    }

    /// `"30m"` or `"never"`, if it is there.
    ///
    /// # Errors
    /// When it is something else, or outside a minute to a year.
    pub fn idle_after(&self) -> Result<Option<IdleAfter>, Failure> {
        let Some(text) = self.text("idle_after")? else { return Ok(None) };
        if text == "never" {
            return Ok(Some(IdleAfter::Never));
        }
        let bounds = Duration::from_secs(60)..=Duration::from_secs(365 * 86_400);
        let after = humantime::parse_duration(text).ok().filter(|after| bounds.contains(after));
        after.map(|after| Some(IdleAfter::After(after))).ok_or_else(|| {
            Failure::invalid(
                "idle_after must be a duration of at least a minute such as \"30m\" or \"2h\", or \"never\"",
            )
        })
    }
}

/// What is wrong and where, without the words of the parser's types.
fn syntax(error: &serde_json::Error) -> String {
    if error.is_eof() { "it ends early".to_owned() } else { error.to_string() }
}

/// A name from outside, short and without what a terminal or a page would act on.
fn shown(name: &str) -> String {
    name.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &[u8], known: &[&str]) -> &'static str {
        Fields::parse(body, known).err().map_or("ok", |failure| failure.code)
    }

    #[test]
    fn case_30_what_is_no_json_object_is_refused() {
        for body in
            [&b""[..], b"null", b"[]", b"\"x\"", b"{\"name\":", b"{\"a\":1e400}", b"\xff\xfe", b"{}{}"]
        {
            assert_eq!(code(body, &["name", "a"]), "InvalidJson", "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn case_31_deep_nesting_is_refused_without_a_deep_stack() {
        assert_eq!(code(&vec![b'['; 100_000], &[]), "InvalidJson");
        let deep = [&b"{\"a\":"[..], &vec![b'['; 100_000]].concat();
        assert_eq!(code(&deep, &["a"]), "InvalidJson");
    }

    #[test]
    fn case_33_140_an_unknown_field_is_refused_by_its_name() {
        for name in
            ["owner_id", "status", "container_id", "privileged", "binds", "network", "upstream", "address"]
        {
            let body = format!("{{\"name\":\"x\",\"{name}\":true}}");
            let failure = Fields::parse(body.as_bytes(), &["name"]).err().unwrap();
            assert_eq!((failure.code, failure.message), ("UnknownField", format!("Unknown field: {name}")));
        }
    }

    #[test]
    fn case_32_a_wrong_type_is_refused_with_the_field() {
        let body =
            br#"{"name":7,"port":"80","cpus":"x","memory_mb":9007199254740993,"env":[],"idle_after":"1s"}"#;
        let known = ["name", "port", "cpus", "memory_mb", "env", "idle_after"];
        let fields = Fields::parse(body, &known).ok().unwrap();
        let said = |failure: Option<Failure>| failure.unwrap().message;
        assert_eq!(said(fields.text("name").err()), "name must be a text");
        assert_eq!(
            said(fields.integer("port", 1..=65535).err()),
            "port must be a whole number from 1 to 65535"
        );
        assert_eq!(said(fields.number("cpus", 0.1..=4.0).err()), "cpus must be a number from 0.1 to 4");
        assert!(said(fields.integer("memory_mb", 16..=512).err()).starts_with("memory_mb must be"));
        assert!(said(fields.env().err()).starts_with("env must be"));
        assert!(said(fields.idle_after().err()).starts_with("idle_after must be"));
        for minus_zero in ["-0", "-0.0", "-1", "1.5", "70000"] {
            let fields =
                Fields::parse(format!("{{\"port\":{minus_zero}}}").as_bytes(), &["port"]).ok().unwrap();
            assert!(fields.integer("port", 1..=65535).is_err(), "{minus_zero}");
        }
    }
}
