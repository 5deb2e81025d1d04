//! Configuration: defaults → TOML file → `EVERHOLD__SECTION__KEY`, checked against the type's JSON Schema.
//!
//! The one module that reads the environment. Unknown keys, wrong types and missing values are all
//! reported at once. Every [`Secret`] may be given as `<key>_file` instead. It must not know any key.

mod check;
mod layers;
mod secret;

use std::{fmt, path::Path};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use secret::Secret;

/// Prefix of environment variables; sections are parted by `__`.
pub const PREFIX: &str = "EVERHOLD__";

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has problems:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
impl std::error::Error for ConfigError {}

/// Loads `T` from `file`, if given, and the environment. Defaults are `T`'s own (`#[serde(default)]`).
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn load<T: DeserializeOwned + JsonSchema>(file: Option<&Path>) -> Result<T, ConfigError> {
    let text = match file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| ConfigError {
            problems: vec![format!("{} cannot be read: {error}", path.display())],
        })?),
        None => None,
    };
    load_from(text.as_deref(), environment())
}

/// The same from given parts, for tests and the embedded default.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn load_from<T: DeserializeOwned + JsonSchema>(
    toml: Option<&str>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let schema = schemars::schema_for!(T).to_value();
    let mut problems = Vec::new();
    let mut tree = toml.map_or_else(layers::empty, |text| layers::from_toml(text, &mut problems));
    layers::add_variables(&mut tree, variables, &schema, &mut problems);
    layers::read_secret_files(&mut tree, &schema, &mut problems);
    check::check(&tree, &schema, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    // What the schema cannot say (ranges, URLs) is said by the type itself, one problem at a time.
    serde_json::from_value(tree).map_err(|error| ConfigError { problems: vec![error.to_string()] })
}

/// The JSON Schema of the file, with `<key>_file` beside every secret.
pub fn schema<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    secret::add_file_keys(&mut schema);
    schema
}

/// One variable by its whole name, for the few that are not part of the tree (`EVERHOLD_AGENT_HOME`).
#[expect(clippy::disallowed_methods, reason = "the one module that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "the one module that reads the environment")]
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with(PREFIX))
}

#[cfg(test)]
mod tests;
