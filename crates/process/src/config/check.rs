//! Every deviation of a tree from its schema, with the key it is at.

use serde_json::{Map, Value};

/// Follows `$ref` and the one non-null branch of an optional section.
pub(super) fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(schema, |target| resolve(target, root));
    }
    if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
        let real: Vec<_> = branches.iter().filter(|b| b["type"] != "null").collect();
        if let [only] = real.as_slice() {
            return resolve(only, root);
        }
    }
    schema
}

pub(super) fn is_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    }
}

pub(super) fn check(tree: &Value, root: &Value, problems: &mut Vec<String>) {
    visit(tree, root, root, "", problems);
}

fn visit(value: &Value, schema: &Value, root: &Value, at: &str, problems: &mut Vec<String>) {
    let schema = resolve(schema, root);
    match value {
        Value::Object(object) if schema.get("properties").is_some() => {
            fields(object, schema, root, at, problems);
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    visit(item, inner, root, &format!("{at}[{index}]"), problems);
                }
            }
        }
        _ => {}
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let words: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        problems.push(format!("{at}: must be one of {}", words.join(", ")));
    }
    if schema.get("type").is_some() && !fits(value, schema) {
        // The value itself is not shown: it may be a secret in the wrong place.
        problems.push(format!("{at}: must be of type {}", schema["type"]));
    }
}

fn fields(
    object: &Map<String, Value>,
    schema: &Value,
    root: &Value,
    at: &str,
    problems: &mut Vec<String>,
) {
    let properties = schema["properties"].as_object();
    let open = schema.get("additionalProperties").is_some_and(|extra| extra != &Value::Bool(false));
    for (key, value) in object {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match properties.and_then(|known| known.get(key)) {
            Some(inner) => visit(value, inner, root, &path, problems),
            None if open => {}
            None => problems.push(format!("{path}: there is no such key")),
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            let path = if at.is_empty() { required.to_owned() } else { format!("{at}.{required}") };
            problems.push(format!("{path}: is missing"));
        }
    }
}

fn fits(value: &Value, schema: &Value) -> bool {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => return is_type(schema, "integer") || is_type(schema, "number"),
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    is_type(schema, name)
}
