//! Collects the schemas of the document from the types of the API.

use crate::admin::body::FromFields;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The referenced schemas, by name.
#[derive(Debug, Default)]
pub(super) struct Schemas(pub(super) Map<String, Value>);

impl Schemas {
    /// Adds a type and the types of its fields. Returns a reference to it.
    pub(super) fn add<T: ToSchema>(&mut self) -> Value {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            self.0.entry(name).or_insert_with(|| simplified(serde_json::to_value(schema).unwrap_or_default()));
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// Limits lists of schemas: each the name of a schema that was added, its list, and the most items
    /// of that.
    pub(super) fn limit(&mut self, lists: &[(&str, &str, usize)]) {
        for (schema, list, most) in lists {
            if let Some(property) = self.0.get_mut(*schema).and_then(|schema| schema["properties"].get_mut(list)) {
                property["maxItems"] = (*most).into();
            }
        }
    }

    /// Adds a request body with the limits of its reader; unknown fields are not allowed. Returns a
    /// reference to it.
    pub(super) fn body<T: ToSchema + FromFields>(&mut self) -> Value {
        let reference = self.add::<T>();
        if let Some(schema) = self.0.get_mut(&*T::name()) {
            for field in T::FLAT {
                flatten(schema, field);
            }
            for (field, keyword, number) in T::LIMITS {
                if let Some(property) = schema["properties"].get_mut(field) {
                    property[*keyword] = (*number).into();
                }
            }
            schema["additionalProperties"] = false.into();
        }
        reference
    }
}

/// Replaces a field of an object by the fields of that field.
fn flatten(schema: &mut Value, field: &str) {
    let part = schema["properties"][field].take();
    if let (Some(properties), Value::Object(parts)) = (schema["properties"].as_object_mut(), &part["properties"]) {
        properties.remove(field);
        properties.extend(parts.clone());
    }
    if let (Some(required), Value::Array(parts)) = (schema["required"].as_array_mut(), &part["required"])
        && let Some(at) = required.iter().position(|name| name == field)
    {
        required.splice(at..=at, parts.iter().cloned());
    }
}

/// Rewrites a schema for generators of clients: replaces a `oneOf` of one schema by that schema,
/// and adds `additionalProperties` to an object without named properties.
fn simplified(schema: Value) -> Value {
    match schema {
        Value::Array(all) => all.into_iter().map(simplified).collect(),
        Value::Object(members) => {
            let mut members: Map<String, Value> =
                members.into_iter().map(|(name, it)| (name, simplified(it))).collect();
            let only = match members.get("oneOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([Value::Object(only)]) => Some(only.clone()),
                _ => None,
            };
            if let Some(only) = only {
                members.remove("oneOf");
                members.extend(only);
            }
            let is_object = match members.get("type") {
                Some(Value::Array(types)) => types.contains(&"object".into()),
                Some(kind) => kind == "object",
                None => false,
            };
            if is_object && !members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(true.into());
            }
            Value::Object(members)
        }
        other => other,
    }
}
