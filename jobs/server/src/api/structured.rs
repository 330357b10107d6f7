//! What an answer must look like: `response_format`, and vLLM's `structured_outputs` and `guided_*`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::constraint::Grammar;

/// As sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Structured {
    response_format: Option<Value>,
    structured_outputs: Option<Outputs>,
    guided_json: Option<Value>,
    guided_regex: Option<String>,
    guided_choice: Option<Vec<String>>,
    guided_grammar: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outputs {
    json: Option<Value>,
    json_object: Option<bool>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
}

/// The one that was asked for.
///
/// # Errors
/// Several at once, or a form that is none.
pub fn grammar(sent: Structured) -> Result<Option<Grammar>, ApiError> {
    let Outputs { json, json_object, regex, choice, grammar } =
        sent.structured_outputs.unwrap_or_default();
    let any = json_object.unwrap_or(false).then(|| Grammar::Json(json!({"type": "object"})));
    let format = sent.response_format.map(|it| response_format(&it)).transpose()?.flatten();
    let schema = |param: &str, value: Option<Value>| value.map(|it| schema(param, it)).transpose();
    let all = [
        ("response_format", format),
        ("structured_outputs.json", schema("structured_outputs.json", json)?),
        ("structured_outputs.json_object", any),
        ("structured_outputs.regex", regex.map(Grammar::Regex)),
        ("structured_outputs.choice", choice.map(Grammar::Choice)),
        ("structured_outputs.grammar", grammar.map(Grammar::Lark)),
        ("guided_json", schema("guided_json", sent.guided_json)?),
        ("guided_regex", sent.guided_regex.map(Grammar::Regex)),
        ("guided_choice", sent.guided_choice.map(Grammar::Choice)),
        ("guided_grammar", sent.guided_grammar.map(Grammar::Lark)),
    ];
    let mut asked = all.into_iter().filter_map(|(param, grammar)| Some((param, grammar?)));
    let first = asked.next();
    if let (Some((one, _)), Some((other, _))) = (&first, asked.next()) {
        return Err(ApiError::invalid(
            other,
            "invalid_value",
            format!("{other} beside {one}: only one can hold"),
        ));
    }
    match first {
        Some((param, Grammar::Choice(words)))
            if words.is_empty() || words.iter().any(String::is_empty) =>
        {
            Err(ApiError::invalid(
                param,
                "invalid_value",
                "expected a list of texts that are not empty",
            ))
        }
        first => Ok(first.map(|(_, grammar)| grammar)),
    }
}

fn response_format(sent: &Value) -> Result<Option<Grammar>, ApiError> {
    match sent["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::Json(json!({"type": "object"})))),
        Some("json_schema") => {
            let found = sent["json_schema"].get("schema").cloned();
            let param = "response_format.json_schema.schema";
            schema(param, found.unwrap_or(Value::Null)).map(Some)
        }
        _ => {
            let message =
                format!("type is {}, expected text, json_object or json_schema", sent["type"]);
            Err(ApiError::invalid("response_format.type", "invalid_value", message))
        }
    }
}

/// A schema, which vLLM's clients may send as a text.
fn schema(param: &str, sent: Value) -> Result<Grammar, ApiError> {
    let value = match &sent {
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        _ => sent,
    };
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(Grammar::Json(value)),
        _ => Err(ApiError::invalid(
            param,
            "invalid_value",
            "expected a JSON schema, which is an object",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sent: &Value) -> Result<Option<Grammar>, ApiError> {
        grammar(crate::api::read::json(sent.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn one_form_at_most_is_taken() {
        assert_eq!(read(&json!({})).unwrap(), None);
        assert_eq!(read(&json!({"response_format": {"type": "text"}})).unwrap(), None);
        let object = Some(Grammar::Json(json!({"type": "object"})));
        assert_eq!(read(&json!({"response_format": {"type": "json_object"}})).unwrap(), object);
        assert_eq!(read(&json!({"guided_json": "{\"type\": \"object\"}"})).unwrap(), object);
        assert_eq!(
            read(&json!({"structured_outputs": {"regex": "a"}})).unwrap(),
            Some(Grammar::Regex("a".into()))
        );
        for (sent, param) in [
            (
                json!({"guided_regex": "a", "response_format": {"type": "json_object"}}),
                "guided_regex",
            ),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "response_format.json_schema.schema",
            ),
            (json!({"guided_json": "no"}), "guided_json"),
            (json!({"guided_choice": []}), "guided_choice"),
        ] {
            assert_eq!(read(&sent).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
