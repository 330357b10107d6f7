//! Constrained output: whatever a model of random weights says, it is what was asked for.

use serde_json::{Value, json};

use crate::common::Server;

fn chat(server: &Server, seed: u64, extra: &Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400,
                          "temperature": 1, "seed": seed});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0].clone()
}

fn content(choice: &Value) -> &str {
    choice["message"]["content"].as_str().unwrap()
}

#[test]
fn every_answer_under_a_schema_parses_and_obeys() {
    let server = Server::start();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "the"]}, "minItems": 1, "maxItems": 3},
            "ok": {"type": "boolean"},
        },
        "required": ["name", "age", "tags", "ok"],
        "additionalProperties": false,
    });
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    for seed in 0..12 {
        let choice = chat(&server, seed, &format);
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        let value: Value =
            serde_json::from_str(content(&choice)).unwrap_or_else(|e| panic!("{e}: {choice}"));
        assert_eq!(value.as_object().unwrap().len(), 4);
        assert!(value["name"].as_str().unwrap().chars().count() <= 12 && value["ok"].is_boolean());
        assert!(value["age"].as_u64().unwrap() <= 150);
        let tags = value["tags"].as_array().unwrap();
        assert!(
            (1..=3).contains(&tags.len())
                && tags.iter().all(|tag| ["a", "b", "the"].contains(&tag.as_str().unwrap()))
        );
    }
    server.idle();
}

#[test]
fn regex_choice_and_grammar_hold() {
    let server = Server::start();
    for seed in 0..6 {
        let date = chat(&server, seed, &json!({"guided_regex": "20[0-9]{2}-[01][0-9]"}));
        let date = content(&date);
        assert!(date.len() == 7 && date.starts_with("20") && date.as_bytes()[4] == b'-', "{date}");
        let word = chat(&server, seed, &json!({"guided_choice": ["yes", "no \"maybe\"", "ö"]}));
        assert!(["yes", "no \"maybe\"", "ö"].contains(&content(&word)), "{word}");
        let grammar = "start: \"(\" NUMBER (\"+\" NUMBER)* \")\"\nNUMBER: /[0-9]{1,3}/";
        let sum = chat(
            &server,
            seed,
            &json!({"structured_outputs": {"grammar": grammar}, "max_tokens": 60}),
        );
        let inside = content(&sum).strip_prefix('(').unwrap();
        let inside = inside.strip_suffix(')').unwrap_or_else(|| {
            assert_eq!(sum["finish_reason"], "length");
            inside.trim_end_matches('+')
        });
        assert!(
            inside.split('+').all(|number| number.is_empty() || number.parse::<u16>().is_ok()),
            "{inside}"
        );
    }
}

#[test]
fn each_of_several_choices_obeys_by_itself() {
    let server = Server::start();
    let body = json!({"model": "tiny", "prompt": "x", "n": 4, "max_tokens": 40, "temperature": 1, "seed": 1,
                      "guided_choice": ["alpha", "beta", "gamma", "delta"]});
    let (_, answer) = server.post("/v1/completions", &body);
    for choice in answer["choices"].as_array().unwrap() {
        let text = choice["text"].as_str().unwrap();
        assert!(["alpha", "beta", "gamma", "delta"].contains(&text), "{answer}");
    }
}

#[test]
fn a_forced_call_is_one_of_the_tools() {
    let server = Server::start();
    let tool = |name: &str, field: &str| {
        let digit = json!({"type": "integer", "minimum": 0, "maximum": 9});
        let parameters = json!({"type": "object", "properties": {field: digit}, "required": [field],
                                "additionalProperties": false});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    let tools = [tool("add", "a"), tool("drop", "d")];
    for seed in 0..4 {
        let choice = chat(&server, seed, &json!({"tools": tools, "tool_choice": "required"}));
        assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
        let function = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Value =
            serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        let field = if function["name"] == "add" { "a" } else { "d" };
        assert!(arguments[field].as_u64().unwrap() < 10, "{choice}");
        assert_eq!(choice["message"]["content"], Value::Null);
    }
    let named = json!({"type": "function", "function": {"name": "drop"}});
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "seed": 3,
                      "tools": tools, "tool_choice": named, "stream": true});
    let events = server.stream("/v1/chat/completions", &body);
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(
        (calls.len(), &calls[0]["function"]["name"], &calls[0]["index"]),
        (1, &json!("drop"), &json!(0))
    );
}

#[test]
fn a_grammar_that_is_none_is_refused() {
    let server = Server::start();
    let body = |extra: Value| {
        let mut body = json!({"model": "tiny", "prompt": "x", "max_tokens": 4});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for extra in [
        json!({"guided_regex": "("}),
        json!({"guided_grammar": "start: nothing"}),
        json!({"guided_json": {"type": "wizard"}}),
        json!({"guided_json": {"type": "object", "properties": {"a": {"$ref": "http://elsewhere/schema"}}}}),
        json!({"guided_choice": vec!["x".repeat(1000); 100]}),
    ] {
        let (status, answer) = server.post("/v1/completions", &body(extra.clone()));
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (400, Some("invalid_grammar")),
            "{extra} {answer}"
        );
    }
}
