//! What a message says: a number, or a value, at a place in its JSON or as its whole payload.

use serde_json::Value;

/// A place in a JSON document: `temp`, `values.temp`, `channels.0.value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(Vec<String>);

impl Field {
    pub fn new(text: &str) -> Result<Field, String> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) {
            return Err(
                "expected names with dots between them, like values.temp or channels.0.value"
                    .to_owned(),
            );
        }
        Ok(Field(steps))
    }

    fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

/// What was found there.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    Number(f64),
    /// Anything else, as JSON.
    Other(String),
    /// The payload is no JSON, or has no such field; without a field: it is no number.
    None,
}

/// Reads `field` of a JSON payload, or, without one, the whole payload as a number.
pub fn read(payload: &[u8], field: Option<&Field>) -> Reading {
    let Some(field) = field else {
        let text = std::str::from_utf8(payload).unwrap_or_default().trim();
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        return number.map_or(Reading::None, Reading::Number);
    };
    let Ok(document) = serde_json::from_slice::<Value>(payload) else {
        return Reading::None;
    };
    match field.find(&document) {
        None => Reading::None,
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Reading::Number(number),
            None => Reading::Other(value.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_other_values_are_found() {
        let document =
            r#"{"t": 21.5, "n": {"deep": [1, {"x": -2}]}, "s": "on", "a.b": 3, "nil": null}"#;
        for (field, payload, expected) in [
            (Some("t"), document, Reading::Number(21.5)),
            (Some("n.deep.0"), document, Reading::Number(1.0)),
            (Some("n.deep.1.x"), document, Reading::Number(-2.0)),
            (Some("s"), document, Reading::Other("\"on\"".into())),
            (Some("nil"), document, Reading::Other("null".into())),
            (Some("n.deep.7"), document, Reading::None),
            (Some("t.x"), document, Reading::None),
            (Some("t"), "21.5", Reading::None),
            (Some("t"), "{broken", Reading::None),
            (None, " 21.5\n", Reading::Number(21.5)),
            (None, "-1e3", Reading::Number(-1000.0)),
            (None, "NaN", Reading::None),
            (None, "on", Reading::None),
            (None, "", Reading::None),
        ] {
            let field = field.map(|field| Field::new(field).unwrap());
            assert_eq!(
                read(payload.as_bytes(), field.as_ref()),
                expected,
                "{field:?} of {payload}"
            );
        }
        for wrong in ["", "a..b", ".a"] {
            assert!(Field::new(wrong).is_err(), "{wrong}");
        }
        // Deeply nested JSON is an error, not the end of the stack.
        let deep = "[".repeat(100_000);
        let field = Field::new("a").unwrap();
        assert_eq!(read(deep.as_bytes(), Some(&field)), Reading::None);
    }
}
