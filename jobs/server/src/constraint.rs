//! Constrained output: a grammar compiled by `llguidance` tells at each step which tokens may follow.

use std::{fmt, sync::Arc};

use ff2_engine::{Constraint, TokenSet};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use serde_json::{Map, Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};

use crate::{limits, text::tokenizer::Tokenizer};

/// What an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// A JSON schema.
    Json(Value),
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Lark, as llguidance reads it.
    Lark(String),
}

/// Compiles grammars for one tokenizer; making it walks all tokens once.
pub struct Grammars {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// `ends` are the tokens that end a text; without one nothing could end where a grammar allows more.
    ///
    /// # Errors
    /// No token ends a text.
    pub fn new(tokenizer: Arc<Tokenizer>, ends: &[u32]) -> Result<Self, String> {
        let first =
            *ends.first().ok_or("the model has no token that ends a text (eos_token_id)")?;
        let word = |(id, bytes): (usize, &Vec<u8>)| match u32::try_from(id) {
            // Control tokens are told from text that looks like them.
            Ok(id) if tokenizer.is_special(id) => {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat()
            }
            _ => bytes.clone(),
        };
        let words: Vec<Vec<u8>> = tokenizer.all_bytes().iter().enumerate().map(word).collect();
        let vocab = u32::try_from(words.len()).map_err(|error| error.to_string())?;
        let trie = TokTrie::from(&TokRxInfo::new(vocab, first), &words).with_eos_tokens(ends);
        let env: toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| error.to_string())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, tokenizer })
    }

    /// A constraint for the choices of a request; `thinking`: it holds behind the thought only.
    ///
    /// # Errors
    /// What the grammar's compiler says: it is meant for who sent the grammar.
    pub fn compile(
        &self,
        grammar: &Grammar,
        thinking: bool,
    ) -> Result<Box<dyn Constraint>, String> {
        let top = match grammar {
            Grammar::Json(schema) => TopLevelGrammar::from_json_schema(compact(schema.clone())),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Choice(words) => {
                let quoted: Vec<String> =
                    words.iter().map(|word| json!(word).to_string()).collect();
                TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | ")))
            }
            Grammar::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        };
        let size = serde_json::to_string(&top).map_or(0, |text| text.len());
        if size > limits::GRAMMAR_BYTES_MAX {
            return Err(format!("{size} bytes, expected at most {}", limits::GRAMMAR_BYTES_MAX));
        }
        let mut matcher = Matcher::new(self.factory.create_parser(top));
        if let Some(error) = matcher.get_error() {
            return Err(error);
        }
        // A grammar that nothing can begin is found now, and not by a generation that fails.
        matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        let thinking = thinking.then(Vec::new);
        Ok(Box::new(Guide { matcher, thinking, tokenizer: self.tokenizer.clone() }))
    }
}

/// Without free white space: a model that is unsure would never stop writing it. A schema may say otherwise.
fn compact(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            map.entry("x-guidance").or_insert_with(|| json!({"whitespace_flexible": false}));
            Value::Object(map)
        }
        // `true` allows anything, `false` nothing.
        Value::Bool(true) => compact(Value::Object(Map::new())),
        other => other,
    }
}

/// The state of one choice.
struct Guide {
    matcher: Matcher,
    /// The last bytes of thought, while the model thinks.
    thinking: Option<Vec<u8>>,
    tokenizer: Arc<Tokenizer>,
}

const THOUGHT: &[u8] = b"</think>";

impl Constraint for Guide {
    fn mask(&mut self, allowed: &mut TokenSet) -> Result<(), String> {
        if self.thinking.is_some() {
            return Ok(());
        }
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        allowed.intersect(mask.as_slice());
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        let Some(tail) = &mut self.thinking else {
            return self.matcher.consume_token(token).map_err(|error| error.to_string());
        };
        tail.extend(self.tokenizer.bytes(token).unwrap_or_default());
        if tail.windows(THOUGHT.len()).any(|window| window == THOUGHT) {
            self.thinking = None;
        } else {
            tail.drain(..tail.len().saturating_sub(THOUGHT.len() - 1));
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.thinking.is_none() && self.matcher.is_stopped()
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        let (thinking, tokenizer) = (self.thinking.clone(), self.tokenizer.clone());
        Box::new(Self { matcher: self.matcher.deep_clone(), thinking, tokenizer })
    }
}
