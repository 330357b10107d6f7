//! The interface over HTTP: what is answered, what is refused, and in which words.

use serde_json::{Value, json};

use crate::common::{self, Server};

fn chat(extra: &Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 24,
                          "temperature": 0, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn completion(extra: &Value) -> Value {
    let mut body = json!({"model": "tiny", "prompt": "Once", "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap()
}

/// What the deltas of a choice come to.
fn gathered(events: &[Value], index: usize, field: &str) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    let of_index = choices.filter(|choice| choice["index"] == index);
    of_index
        .filter_map(|choice| choice["delta"][field].as_str().or(choice[field].as_str()))
        .collect()
}

#[test]
fn a_chat_is_answered_whole_and_streamed_alike() {
    let server = Server::start();
    let (status, whole) = server.post("/v1/chat/completions", &chat(&json!({})));
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "tiny");
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["role"], "assistant");
    let content = choice["message"]["content"].as_str().unwrap();
    assert!(!content.is_empty());
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], prompt + 24);
    let (hit, miss) = (&usage["prompt_cache_hit_tokens"], &usage["prompt_cache_miss_tokens"]);
    assert_eq!(hit.as_u64().unwrap() + miss.as_u64().unwrap(), prompt);
    assert_eq!(&usage["prompt_tokens_details"]["cached_tokens"], hit);

    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = server.stream("/v1/chat/completions", &chat(&options));
    assert_eq!(gathered(&events, 0, "content"), content);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(24)));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk"
                && event["id"] == events[0]["id"])
    );
    let events = server.stream("/v1/chat/completions", &chat(&json!({"stream": true})));
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    server.idle();
}

#[test]
fn completions_take_texts_tokens_and_lists_of_both() {
    let server = Server::start();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let one = ask(&json!({}));
    let (_, tokens) = server.post("/tokenize", &json!({"prompt": "Once"}));
    assert_eq!(tokens["count"], 4);
    assert_eq!(text(&ask(&json!({"prompt": tokens["tokens"]}))), text(&one));
    let many = ask(&json!({"prompt": ["Once", "Twice"], "n": 2}));
    let texts: Vec<&str> =
        many["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!((texts.len(), texts[0], texts[1]), (4, text(&one), text(&one)));
    assert_eq!(texts[2], texts[3]);
    assert_ne!(texts[0], texts[2]);
    assert_eq!(many["usage"]["completion_tokens"], 4 * 24);
    let echoed = ask(&json!({"echo": true}));
    assert_eq!(text(&echoed), format!("Once{}", text(&one)));
    let (_, back) = server.post("/detokenize", &json!({"tokens": tokens["tokens"]}));
    assert_eq!(back["prompt"], "Once");
}

#[test]
fn streams_never_show_half_a_character() {
    let server = Server::start();
    // A model of random weights says random bytes, most of which are no text.
    let options = json!({"temperature": 1, "seed": 3, "max_tokens": 200});
    let (_, whole) = server.post("/v1/completions", &completion(&options));
    let mut streamed = options.clone();
    streamed["stream"] = json!(true);
    let events = server.stream("/v1/completions", &completion(&streamed));
    assert_eq!(gathered(&events, 0, "text"), text(&whole));
    assert!(text(&whole).contains(char::REPLACEMENT_CHARACTER));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let server = Server::start();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let seed = json!({"temperature": 1, "seed": 5, "max_tokens": 60});
    let free = ask(&seed);
    let free = text(&free).to_owned();
    let chars: Vec<(usize, char)> = free.char_indices().collect();
    // Three characters in the middle, which no two tokens need to share.
    let (from, to) = (chars[chars.len() / 2].0, chars[chars.len() / 2 + 3].0);
    let stop = &free[from..to];
    let cut = &free[..free.find(stop).unwrap()];
    let mut with = seed.clone();
    with["stop"] = json!(["never seen", stop]);
    let stopped = ask(&with);
    assert_eq!((text(&stopped), &stopped["choices"][0]["finish_reason"]), (cut, &json!("stop")));
    with["stream"] = json!(true);
    assert_eq!(gathered(&server.stream("/v1/completions", &completion(&with)), 0, "text"), cut);
    with["stream"] = json!(false);
    with["include_stop_str_in_output"] = json!(true);
    assert_eq!(text(&ask(&with)), format!("{cut}{stop}"));
    server.idle();
}

#[test]
fn sampling_obeys_seed_bias_and_logprobs() {
    let server = Server::start();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let random = |seed: u64| ask(&json!({"temperature": 1.5, "seed": seed}));
    assert_eq!(text(&random(1)), text(&random(1)));
    assert_ne!(text(&random(1)), text(&random(2)));
    assert_eq!(text(&ask(&json!({"logit_bias": {"65": 100}, "max_tokens": 5}))), "AAAAA");
    let told = ask(&json!({"logit_bias": {"65": 100}, "max_tokens": 3, "logprobs": 2}));
    let logprobs = &told["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["A", "A", "A"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2]));
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 3);

    let options = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 6});
    // Once before, so that both find the same prefix: other sizes of products round in another way.
    server.post("/v1/chat/completions", &chat(&options));
    let (_, whole) = server.post("/v1/chat/completions", &chat(&options));
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 6);
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the token is the likeliest.
        assert_eq!(entry["logprob"], top[0]["logprob"]);
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0 && entry["bytes"].is_array());
    }
    let mut streamed = options.clone();
    streamed["stream"] = json!(true);
    let events = server.stream("/v1/chat/completions", &chat(&streamed));
    let told =
        events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(told.flatten().cloned().collect::<Vec<_>>(), *content);
}

#[test]
fn the_end_token_ends_unless_ignored() {
    let server = Server::start();
    let end = common::END.to_string();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let ended = ask(&json!({"logit_bias": {end.clone(): 100}, "ignore_eos": false}));
    assert_eq!((text(&ended), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    let ignored = ask(&json!({"logit_bias": {end: 100}, "ignore_eos": true, "max_tokens": 4}));
    assert_eq!((text(&ignored), &ignored["choices"][0]["finish_reason"]), ("", &json!("length")));
    assert_eq!(ignored["usage"]["completion_tokens"], 4);
    let by_id = ask(&json!({"logit_bias": {"66": 100}, "stop_token_ids": [66]}));
    assert_eq!((text(&by_id), &by_id["choices"][0]["finish_reason"]), ("", &json!("stop")));
}

#[test]
fn least_tokens_bad_words_and_allowed_tokens_are_obeyed() {
    let server = Server::start();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let end = common::END.to_string();
    let ended = ask(&json!({"logit_bias": {end: 100}, "ignore_eos": false, "min_tokens": 5}));
    // The end itself counts, as everywhere.
    assert_eq!(ended["usage"]["completion_tokens"], 6, "{ended}");
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert_eq!(text(&ask(&json!({"allowed_token_ids": [65], "max_tokens": 4}))), "AAAA");
    let two = json!({"allowed_token_ids": [65, 66], "logit_bias": {"65": 100}, "max_tokens": 5});
    let but = |words: Value| {
        let mut body = two.clone();
        body["bad_words"] = words;
        text(&ask(&body)).to_owned()
    };
    assert_eq!(but(json!([])), "AAAAA");
    assert_eq!(but(json!(["A"])), "BBBBB");
    assert_eq!(but(json!(["AA"])), "ABABA");
    assert_eq!(but(json!(["AAA", "BA"])), "AABBB");
    // Stop strings count from there on too.
    let stopped = ask(&json!({"allowed_token_ids": [65], "stop": "A", "min_tokens": 3}));
    assert_eq!((text(&stopped), &stopped["choices"][0]["finish_reason"]), ("AAA", &json!("stop")));
    // What is whole ends, however few tokens it has.
    let one = ask(&json!({"guided_choice": ["A"], "min_tokens": 9, "ignore_eos": false}));
    assert_eq!(text(&one), "A", "{one}");
    let (status, error) =
        server.post("/v1/completions", &completion(&json!({"prompt_logprobs": 1, "stream": true})));
    assert_eq!((status, &error["error"]["param"]), (400, &json!("prompt_logprobs")));
    server.idle();
}

#[test]
fn log_probabilities_of_prompts_are_told() {
    let server = Server::start();
    let ask = |extra: &Value| server.post("/v1/completions", &completion(extra)).1;
    let wanted =
        json!({"echo": true, "logprobs": 2, "max_tokens": 3, "prompt_logprobs": 1, "n": 2});
    let whole = ask(&wanted);
    let choice = &whole["choices"][1];
    let told = &choice["logprobs"];
    assert!(text(&whole).starts_with("Once"), "{whole}");
    assert_eq!(told["tokens"].as_array().unwrap()[..4], ["O", "n", "c", "e"]);
    assert_eq!(told["text_offset"].as_array().unwrap()[..5], [0, 1, 2, 3, 4]);
    let values = told["token_logprobs"].as_array().unwrap();
    assert_eq!(
        (values.len(), &values[0], &told["top_logprobs"][0]),
        (7, &Value::Null, &Value::Null)
    );
    assert!(values[1..].iter().all(|it| it.as_f64().unwrap() < 0.0), "{told}");
    assert!(told["top_logprobs"].as_array().unwrap()[1..].iter().all(|it| !it.is_null()));
    // In vLLM's words, by id; "n" is 110.
    let prompt = choice["prompt_logprobs"].as_array().unwrap();
    assert_eq!((prompt.len(), &prompt[0]), (4, &Value::Null));
    assert_eq!(
        (&prompt[1]["110"]["logprob"], &prompt[1]["110"]["decoded_token"]),
        (&values[1], &json!("n"))
    );
    assert!(prompt[1].as_object().unwrap().values().any(|it| it["rank"] == 1), "{prompt:?}");
    // Without the echo they are told there alone.
    let silent = ask(&json!({"prompt_logprobs": 0, "logprobs": 0, "max_tokens": 3}));
    assert_eq!(silent["choices"][0]["prompt_logprobs"].as_array().unwrap().len(), 4);
    assert_eq!(silent["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3);

    let streamed = json!({"echo": true, "logprobs": 2, "max_tokens": 3, "stream": true});
    let events = server.stream("/v1/completions", &completion(&streamed));
    assert_eq!(gathered(&events, 0, "text"), text(&whole));
    let told =
        events.iter().filter_map(|it| it["choices"][0]["logprobs"]["token_logprobs"].as_array());
    assert_eq!(told.flatten().cloned().collect::<Vec<_>>(), *values);

    let (_, whole) = server.post("/v1/chat/completions", &chat(&json!({"prompt_logprobs": 1})));
    let prompt = whole["prompt_logprobs"].as_array().unwrap();
    assert_eq!(json!(prompt.len()), whole["usage"]["prompt_tokens"]);
    server.idle();
}

#[test]
fn thought_is_told_apart() {
    let server = Server::start();
    // The template opens the tag, so all that comes without its end is thought.
    let thinking = chat(&json!({"chat_template_kwargs": {"thinking": true}}));
    let (_, whole) = server.post("/v1/chat/completions", &thinking);
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"], "");
    let thought = message["reasoning_content"].as_str().unwrap();
    assert!(!thought.is_empty());
    assert_eq!(whole["usage"]["completion_tokens_details"]["reasoning_tokens"], 24);
    let mut streamed = thinking;
    streamed["stream"] = json!(true);
    let events = server.stream("/v1/chat/completions", &streamed);
    assert_eq!(gathered(&events, 0, "reasoning_content"), thought);
    assert_eq!(gathered(&events, 0, "content"), "");
}

#[test]
fn models_health_and_metrics_are_told() {
    let server = Server::start();
    let (status, body) = server.get("/v1/models");
    let models: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("tiny")));
    assert_eq!(server.get("/v1/models/tiny").0, 200);
    assert_eq!(server.get("/v1/models/huge").0, 404);
    assert_eq!(server.get("/health").0, 200);
    server.post("/v1/completions", &completion(&json!({})));
    let (_, metrics) = server.get("/metrics");
    for line in [
        "vllm:prompt_tokens_total{model_name=\"tiny\"} 4",
        "vllm:generation_tokens_total{model_name=\"tiny\"} 24",
        "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"length\"} 1",
        "vllm:time_to_first_token_seconds_count{model_name=\"tiny\"} 1",
        "vllm:inter_token_latency_seconds_count{model_name=\"tiny\"} 23",
        "vllm:num_requests_waiting{model_name=\"tiny\"} 0.0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
}

#[test]
fn the_dashboard_asks_for_figures_that_there_are() {
    let server = Server::start();
    server.post("/v1/completions", &completion(&json!({})));
    server.get("/nowhere");
    let (_, metrics) = server.get("/metrics");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/grafana/ff2-serve.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let targets = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|it| it["targets"].as_array().unwrap());
    let mut asked = 0;
    for target in targets {
        let words = target["expr"]
            .as_str()
            .unwrap()
            .split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        for name in words.filter(|word| word.starts_with("vllm:") || word.starts_with("ff2_serve_"))
        {
            assert!(
                metrics.contains(&format!("\n{name}{{model_name=")),
                "{name} is nowhere in {metrics}"
            );
            asked += 1;
        }
    }
    assert!(asked > 15, "the dashboard asks for {asked} figures only");
}

#[test]
fn what_is_wrong_is_refused_in_openais_words() {
    let server = Server::start();
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]);
    let long = "x".repeat(5000);
    let cases: Vec<(&str, Value, u16, &str, Option<&str>)> = vec![
        ("chat/completions", json!({}), 400, "invalid_type", None),
        (
            "chat/completions",
            chat(&json!({"messages": []})),
            400,
            "invalid_value",
            Some("messages"),
        ),
        (
            "chat/completions",
            chat(&json!({"messages": "hi"})),
            400,
            "invalid_type",
            Some("messages"),
        ),
        (
            "chat/completions",
            chat(&json!({"messages": image})),
            400,
            "unsupported_content",
            Some("messages[0].content[0].type"),
        ),
        (
            "chat/completions",
            chat(&json!({"model": "gpt-4"})),
            404,
            "model_not_found",
            Some("model"),
        ),
        ("chat/completions", chat(&json!({"model": 4})), 400, "invalid_type", Some("model")),
        (
            "chat/completions",
            chat(&json!({"temperature": -1})),
            400,
            "invalid_value",
            Some("temperature"),
        ),
        ("chat/completions", chat(&json!({"n": "two"})), 400, "invalid_type", Some("n")),
        (
            "chat/completions",
            chat(&json!({"logit_bias": {"9999": 1}})),
            400,
            "invalid_value",
            Some("logit_bias"),
        ),
        (
            "chat/completions",
            chat(&json!({"messages": [{"role": "user", "content": long}]})),
            400,
            "context_length_exceeded",
            Some("messages"),
        ),
        (
            "chat/completions",
            chat(&json!({"tool_choice": "required"})),
            400,
            "invalid_value",
            Some("tool_choice"),
        ),
        ("completions", completion(&json!({"prompt": 7})), 400, "invalid_type", Some("prompt")),
        (
            "completions",
            completion(&json!({"prompt": [99999]})),
            400,
            "invalid_value",
            Some("prompt"),
        ),
        ("completions", completion(&json!({"prompt": ""})), 400, "invalid_value", Some("prompt")),
        (
            "completions",
            completion(&json!({"suffix": "x"})),
            400,
            "unsupported_parameter",
            Some("suffix"),
        ),
        (
            "completions",
            completion(&json!({"prompt": long})),
            400,
            "context_length_exceeded",
            Some("prompt"),
        ),
        ("embeddings", json!({}), 404, "not_found", None),
        // Of Anthropic's interface.
        ("messages", chat(&json!({})), 404, "not_found", None),
    ];
    for (path, body, status, code, param) in cases {
        let (found, answer) = server.post(&format!("/v1/{path}"), &body);
        let error = &answer["error"];
        assert_eq!(
            (found, error["code"].as_str(), error["param"].as_str()),
            (status, Some(code), param),
            "{answer}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(answer["type"], "error", "Anthropic's clients look for that");
        assert!(error["message"].as_str().unwrap().len() > 5);
    }
    for garbage in [&b"{"[..], b"\xff\xfe", b"", b"[[[[", b"{\"messages\": \"\\ud800\"}", b"null"] {
        let (status, answer) = server.post_bytes("/v1/chat/completions", garbage);
        assert_eq!(
            (status, &answer["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{garbage:?}"
        );
    }
    assert_eq!(server.get("/v1/chat/completions").0, 405);
    assert_eq!(server.idle().tokens_generated, 0);
    // Fields that nobody knows are no error.
    assert_eq!(server.post("/v1/chat/completions", &chat(&json!({"brand_new": [1]}))).0, 200);
}
