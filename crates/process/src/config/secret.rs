//! Values that are never shown.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Value, json};

/// `format` that marks a secret in a schema.
pub(super) const FORMAT: &str = "secret";

/// A secret from the configuration. `Debug` shows nothing; there is no `Display` and no `Serialize`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub const fn new(value: String) -> Self {
        Self(value)
    }
    /// The value itself. Each use is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": FORMAT })
    }
}

/// Adds `<key>_file` to every object with a secret in it.
pub(super) fn add_file_keys(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                let secrets: Vec<String> = properties
                    .iter()
                    .filter(|(_, property)| property.get("format") == Some(&json!(FORMAT)))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in &secrets {
                    let description = format!("Path of a file that holds `{name}`.");
                    let file = json!({ "type": "string", "description": description });
                    properties.insert(format!("{name}_file"), file);
                }
                if let Some(Value::Array(required)) = object.get_mut("required") {
                    required.retain(|name| !secrets.iter().any(|secret| name == secret));
                }
            }
            object.values_mut().for_each(add_file_keys);
        }
        Value::Array(items) => items.iter_mut().for_each(add_file_keys),
        _ => {}
    }
}
