//! The layers above the defaults: file, variables, secret files.

use serde_json::{Map, Value, json};

use super::{
    PREFIX,
    check::{is_type, resolve},
    secret,
};

pub(super) fn empty() -> Value {
    Value::Object(Map::new())
}

pub(super) fn from_toml(text: &str, problems: &mut Vec<String>) -> Value {
    match toml::from_str::<Value>(text) {
        Ok(tree) => tree,
        Err(error) => {
            // The message, not the rendered error: that one quotes the line, which may hold a secret.
            problems.push(format!("the file is not TOML: {}", error.message()));
            empty()
        }
    }
}

pub(super) fn add_variables(
    tree: &mut Value,
    variables: impl IntoIterator<Item = (String, String)>,
    schema: &Value,
    problems: &mut Vec<String>,
) {
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        let value = read_as(&text, &path, schema);
        if !insert(tree, &path, value) {
            problems.push(format!("{name}: a part of this key holds a value, not a section"));
        }
    }
}

/// A variable is text unless the schema wants something else at its place.
fn read_as(text: &str, path: &[String], root: &Value) -> Value {
    let mut schema = resolve(root, root);
    for key in path {
        let next = schema.get("properties").and_then(|p| p.get(key));
        let Some(next) = next.or_else(|| schema.get("additionalProperties")) else {
            return json!(text);
        };
        schema = resolve(next, root);
    }
    if schema.get("type").is_none() || is_type(schema, "string") {
        return json!(text);
    }
    let parsed = toml::from_str::<Value>(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.get_mut("value").map(Value::take)).unwrap_or(json!(text))
}

fn insert(tree: &mut Value, path: &[String], value: Value) -> bool {
    let Value::Object(object) = tree else { return false };
    match path {
        [] => false,
        [last] => {
            object.insert(last.clone(), value);
            true
        }
        [first, rest @ ..] => {
            insert(object.entry(first.clone()).or_insert_with(empty), rest, value)
        }
    }
}

/// Replaces `<key>_file` by `<key>` wherever the schema has a secret of that name.
pub(super) fn read_secret_files(tree: &mut Value, root: &Value, problems: &mut Vec<String>) {
    visit(tree, root, root, problems);
}

fn visit(value: &mut Value, schema: &Value, root: &Value, problems: &mut Vec<String>) {
    let schema = resolve(schema, root);
    match value {
        Value::Object(object) => {
            let known = schema.get("properties").and_then(Value::as_object);
            for (name, property) in known.into_iter().flatten() {
                if property.get("format") == Some(&json!(secret::FORMAT)) {
                    read_file(object, name, problems);
                }
            }
            for (name, inner) in object.iter_mut() {
                let property = known.and_then(|known| known.get(name));
                if let Some(property) = property.or_else(|| schema.get("additionalProperties")) {
                    visit(inner, property, root, problems);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                items.iter_mut().for_each(|item| visit(item, inner, root, problems));
            }
        }
        _ => {}
    }
}

fn read_file(object: &mut Map<String, Value>, name: &str, problems: &mut Vec<String>) {
    let key = format!("{name}_file");
    let Some(path) = object.remove(&key) else { return };
    if object.contains_key(name) {
        problems.push(format!("{key}: {name} is given too; keep one of them"));
        return;
    }
    let read = path.as_str().map(std::fs::read_to_string);
    match read {
        Some(Ok(text)) => {
            object.insert(name.to_owned(), json!(text.trim_end_matches(['\r', '\n'])));
        }
        Some(Err(error)) => problems.push(format!("{key}: cannot be read: {error}")),
        None => problems.push(format!("{key}: must be a path")),
    }
}
