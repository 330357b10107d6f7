//! How to generate: the fields that chats and completions share, with OpenAI's and vLLM's names and bounds.

use std::collections::BTreeMap;

use ff2_engine::Sampling;
use serde::Deserialize;
use serde_json::Value;

use super::{error::ApiError, read};
use crate::{limits, service::Service};

/// As sent. All may be absent or null; which default follows is the business of [`Fields::check`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    model: Option<String>,
    n: Option<usize>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    stop_token_ids: Option<Vec<u32>>,
    ignore_eos: Option<bool>,
    include_stop_str_in_output: Option<bool>,
    skip_special_tokens: Option<bool>,
    logit_bias: Option<BTreeMap<String, f32>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    min_tokens: Option<usize>,
    bad_words: Option<Vec<String>>,
    allowed_token_ids: Option<Vec<u64>>,
    prompt_logprobs: Option<i64>,
    // What is known and not done here: silence would be a wrong answer.
    best_of: Option<usize>,
    use_beam_search: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Checked. What each number means is with the sampler of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    pub model: Option<String>,
    pub n: usize,
    /// None: as many as fit.
    pub max_tokens: Option<usize>,
    pub min_tokens: usize,
    /// Likeliest tokens to tell beside each of the prompt's.
    pub prompt_logprobs: Option<usize>,
    /// Texts that an answer must not have; as tokens they stand in `sampling`.
    pub bad_words: Vec<String>,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub stop_token_ids: Vec<u32>,
    pub ignore_eos: bool,
    pub show_stop: bool,
    pub show_special: bool,
    pub stream: bool,
    pub include_usage: bool,
}

/// Reads the fields of a request, bad words as tokens too.
///
/// # Errors
/// As [`Fields::check`]; a bad word that is no text.
pub fn read(service: &Service, body: &[u8]) -> Result<Parameters, ApiError> {
    let mut parameters = read::json::<Fields>(body)?.check(service.tokenizer.vocab())?;
    for word in &parameters.bad_words {
        // A word has other tokens behind a space; where these are as many, both are meant, as vLLM has it.
        let bare = service.encode("bad_words", word, false)?;
        let behind = service.encode("bad_words", &format!(" {}", word.trim_start()), false)?;
        let differs = behind.first() != bare.first() && behind.len() == bare.len();
        let words = &mut parameters.sampling.bad_words;
        words.push(bare);
        words.extend(differs.then_some(behind));
    }
    Ok(parameters)
}

impl Fields {
    /// # Errors
    /// A value out of its bounds, a token that the model has not, a field that is known and not supported.
    pub fn check(self, vocab: usize) -> Result<Parameters, ApiError> {
        self.unsupported()?;
        let n = self.n.unwrap_or(1);
        within("n", n, 1, limits::CHOICES_MAX)?;
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::invalid(
                "max_tokens",
                "invalid_value",
                "max_tokens is 0, expected at least 1",
            ));
        }
        let temperature = self.temperature.unwrap_or(1.0);
        within("temperature", temperature, 0.0, 10.0)?;
        let top_p = self.top_p.unwrap_or(1.0);
        within("top_p", top_p, f32::MIN_POSITIVE, 1.0)?;
        let top_k = self.top_k.unwrap_or(0);
        within("top_k", top_k, -1, i64::from(u32::MAX))?;
        let min_p = self.min_p.unwrap_or(0.0);
        within("min_p", min_p, 0.0, 1.0)?;
        let repetition_penalty = self.repetition_penalty.unwrap_or(1.0);
        within("repetition_penalty", repetition_penalty, 0.01, 100.0)?;
        let presence_penalty = self.presence_penalty.unwrap_or(0.0);
        within("presence_penalty", presence_penalty, -2.0, 2.0)?;
        let frequency_penalty = self.frequency_penalty.unwrap_or(0.0);
        within("frequency_penalty", frequency_penalty, -2.0, 2.0)?;
        let stop = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        within("stop", stop.len(), 0, limits::STOPS_MAX)?;
        if stop.iter().any(|stop| stop.is_empty() || stop.len() > limits::STOP_BYTES_MAX) {
            let most = limits::STOP_BYTES_MAX;
            return Err(ApiError::invalid(
                "stop",
                "invalid_value",
                format!("a stop string has 1 to {most} bytes"),
            ));
        }
        let min_tokens = self.min_tokens.unwrap_or(0);
        if max_tokens.is_some_and(|most| min_tokens > most) {
            let message = format!("min_tokens is {min_tokens}, more than max_tokens");
            return Err(ApiError::invalid("min_tokens", "invalid_value", message));
        }
        let stream = self.stream.unwrap_or(false);
        if let Some(count) = self.prompt_logprobs {
            within("prompt_logprobs", count, 0, limits::LOGPROBS_MAX)?;
            if stream {
                let message = "prompt_logprobs are told in whole answers only, leave out stream";
                return Err(ApiError::invalid("prompt_logprobs", "invalid_value", message));
            }
        }
        let bad_words = self.bad_words.unwrap_or_default();
        within("bad_words", bad_words.len(), 0, limits::BAD_WORDS_MAX)?;
        let most = limits::STOP_BYTES_MAX;
        if bad_words.iter().any(|word| word.is_empty() || word.len() > most) {
            let message = format!("a bad word has 1 to {most} bytes");
            return Err(ApiError::invalid("bad_words", "invalid_value", message));
        }
        let stop_token_ids = self.stop_token_ids.unwrap_or_default();
        within("stop_token_ids", stop_token_ids.len(), 0, limits::STOPS_MAX)?;
        for token in &stop_token_ids {
            known("stop_token_ids", u64::from(*token), vocab)?;
        }
        Ok(Parameters {
            model: self.model,
            n,
            max_tokens,
            min_tokens,
            prompt_logprobs: self.prompt_logprobs.and_then(|count| usize::try_from(count).ok()),
            bad_words,
            sampling: Sampling {
                temperature,
                top_p,
                top_k: usize::try_from(top_k).unwrap_or(0),
                min_p,
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
                // Any bits do for a seed.
                seed: self.seed.map(i64::cast_unsigned),
                logit_bias: biases(self.logit_bias.unwrap_or_default(), vocab)?,
                allowed_tokens: allowed(self.allowed_token_ids, vocab)?,
                bad_words: Vec::new(),
            },
            stop,
            stop_token_ids,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            show_stop: self.include_stop_str_in_output.unwrap_or(false),
            show_special: !self.skip_special_tokens.unwrap_or(true),
            stream,
            include_usage: self.stream_options.and_then(|it| it.include_usage).unwrap_or(false),
        })
    }

    fn unsupported(&self) -> Result<(), ApiError> {
        let n = self.n.unwrap_or(1);
        let asked = [
            ("best_of", self.best_of.is_some_and(|it| it != n)),
            ("use_beam_search", self.use_beam_search == Some(true)),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            Some((field, _)) => Err(unsupported(field)),
            None => Ok(()),
        }
    }
}

/// A field that is known, and that this server does not do.
pub fn unsupported(field: &str) -> ApiError {
    ApiError::invalid(
        field,
        "unsupported_parameter",
        format!("{field} is not supported by this server, leave it out"),
    )
}

fn allowed(sent: Option<Vec<u64>>, vocab: usize) -> Result<Option<Vec<u32>>, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    if sent.is_empty() {
        let message = "allowed_token_ids is empty, expected at least one token";
        return Err(ApiError::invalid("allowed_token_ids", "invalid_value", message));
    }
    sent.into_iter()
        .map(|token| known("allowed_token_ids", token, vocab))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn biases(sent: BTreeMap<String, f32>, vocab: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    within("logit_bias", sent.len(), 0, limits::BIASES_MAX)?;
    sent.into_iter()
        .map(|(token, bias)| {
            within("logit_bias", bias, -100.0, 100.0)?;
            let id = token.parse::<u64>().map_err(|_| {
                let message =
                    format!("{token:?} is no token id, expected a number as in {{\"42\": -100}}");
                ApiError::invalid("logit_bias", "invalid_value", message)
            })?;
            Ok((known("logit_bias", id, vocab)?, bias))
        })
        .collect()
}

/// A token that the model has.
pub fn known(param: &str, token: u64, vocab: usize) -> Result<u32, ApiError> {
    u32::try_from(token).ok().filter(|id| (*id as usize) < vocab).ok_or_else(|| {
        let message = format!("token {token} is unknown, the model has {vocab}");
        ApiError::invalid(param, "invalid_value", message)
    })
}

fn within<T: PartialOrd + std::fmt::Display>(
    param: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ApiError> {
    // NaN is within nothing.
    if value >= least && value <= most {
        return Ok(());
    }
    let message = format!("{param} is {value}, expected {least} to {most}");
    Err(ApiError::invalid(param, "invalid_value", message))
}

/// `logprobs` is a flag in chats and a number in completions.
pub fn logprobs(
    param: &str,
    sent: Option<&Value>,
    top: Option<i64>,
) -> Result<Option<usize>, ApiError> {
    let count = match (sent, top) {
        (None | Some(Value::Null | Value::Bool(false)), None | Some(0)) => return Ok(None),
        (None | Some(Value::Null | Value::Bool(false)), Some(_)) => {
            let message = "top_logprobs needs logprobs to be true";
            return Err(ApiError::invalid("top_logprobs", "invalid_value", message));
        }
        (Some(Value::Bool(true)), top) => top.unwrap_or(0),
        (Some(Value::Number(number)), None) if number.is_i64() => number.as_i64().unwrap_or(-1),
        (Some(other), _) => {
            let message = format!("{param} is {other}, expected true, false or a number");
            return Err(ApiError::invalid(param, "invalid_type", message));
        }
    };
    within(param, count, 0, limits::LOGPROBS_MAX)?;
    Ok(Some(usize::try_from(count).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &Value) -> Result<Parameters, ApiError> {
        read::json::<Fields>(body.to_string().as_bytes())?.check(100)
    }

    #[test]
    fn bounds_are_held_and_named() {
        for (field, value) in [
            ("n", json!(0)),
            ("n", json!(1000)),
            ("max_tokens", json!(0)),
            ("max_tokens", json!(-1)),
            ("temperature", json!(-0.1)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_p", json!(1.5)),
            ("top_k", json!(-2)),
            ("min_p", json!(2)),
            ("repetition_penalty", json!(0)),
            ("presence_penalty", json!(3)),
            ("frequency_penalty", json!(-3)),
            ("stop", json!([""])),
            ("stop", json!(7)),
            ("stop", json!(vec!["a"; 100])),
            ("stop_token_ids", json!([100])),
            ("logit_bias", json!({"a": 1})),
            ("logit_bias", json!({"100": 1})),
            ("logit_bias", json!({"1": 101})),
            ("min_tokens", json!(-1)),
            ("bad_words", json!([""])),
            ("bad_words", json!(vec!["a"; 1000])),
            ("allowed_token_ids", json!([])),
            ("allowed_token_ids", json!([100])),
            ("prompt_logprobs", json!(-1)),
            ("prompt_logprobs", json!(21)),
            ("use_beam_search", json!(true)),
            ("best_of", json!(2)),
        ] {
            let error = check(&json!({field: value})).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(
                error.param.as_deref().is_some_and(|param| param.starts_with(field)),
                "{field} {value}: {error:?}"
            );
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = check(&json!({"min_tokens": 3, "max_tokens": 2})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("min_tokens"));
        let error = check(&json!({"prompt_logprobs": 0, "stream": true})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("prompt_logprobs"));
    }

    #[test]
    fn null_is_absent_and_defaults_are_those_of_openai() {
        let nulls = json!({"n": null, "stop": null, "temperature": null, "logit_bias": null, "new_field": 1});
        let parameters = check(&nulls).unwrap();
        assert_eq!(parameters, check(&json!({})).unwrap());
        assert_eq!((parameters.n, parameters.sampling), (1, Sampling::default()));
        let all = check(
            &json!({"max_completion_tokens": 5, "max_tokens": 9, "stop": "x", "seed": -1, "top_k": -1}),
        );
        let all = all.unwrap();
        assert_eq!(
            (all.max_tokens, all.stop, all.sampling.seed, all.sampling.top_k),
            (Some(5), vec!["x".into()], Some(u64::MAX), 0)
        );
    }

    #[test]
    fn logprobs_of_both_kinds() {
        assert_eq!(logprobs("logprobs", Some(&json!(true)), Some(3)).unwrap(), Some(3));
        assert_eq!(logprobs("logprobs", Some(&json!(true)), None).unwrap(), Some(0));
        assert_eq!(logprobs("logprobs", Some(&json!(2)), None).unwrap(), Some(2));
        assert_eq!(logprobs("logprobs", None, None).unwrap(), None);
        assert_eq!(
            logprobs("logprobs", None, Some(2)).unwrap_err().param.as_deref(),
            Some("top_logprobs")
        );
        assert!(logprobs("logprobs", Some(&json!(21)), None).is_err());
        assert!(logprobs("logprobs", Some(&json!("x")), None).is_err());
    }
}
