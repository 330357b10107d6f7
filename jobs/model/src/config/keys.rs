//! Takes keys out of `config.json` one by one, so that what is left over is unknown.

use serde_json::{Map, Value};

use super::{Rope, Yarn};

/// Known, and without meaning for what a model computes.
const NO_MATTER: [&str; 24] = [
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "aux_loss_alpha",
    "chunk_size_feed_forward",
    "dtype",
    "ep_size",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "layer_types",
    "mlp_layer_types",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "seq_aux",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

pub(super) struct Keys(Map<String, Value>);

impl Keys {
    pub(super) fn new(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(all) => Ok(Self(all)),
            other => Err(format!("found {}, expected an object", kind(&other))),
        }
    }

    /// Null counts as absent: transformers writes it for both.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    fn required<T>(&mut self, key: &str, found: Option<T>, expected: &str) -> Result<T, String> {
        found.ok_or_else(|| format!("no key `{key}`, expected {expected}"))
    }

    pub(super) fn optional_size(&mut self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| wrong(key, &value, "a whole number"))
    }

    pub(super) fn size(&mut self, key: &str) -> Result<usize, String> {
        let found = self.optional_size(key)?;
        self.required(key, found, "a whole number")
    }

    pub(super) fn optional_number(&mut self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| wrong(key, &value, "a number"))
    }

    pub(super) fn number_or(&mut self, key: &str, default: f64) -> Result<f64, String> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(super) fn flag_or(&mut self, key: &str, default: bool) -> Result<bool, String> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, &value, "true or false"))
    }

    fn optional_text(&mut self, key: &str) -> Result<Option<String>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_str().map(|s| Some(s.to_owned())).ok_or_else(|| wrong(key, &value, "a text"))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<String, String> {
        let found = self.optional_text(key)?;
        self.required(key, found, "a text")
    }

    pub(super) fn text_or(&mut self, key: &str, default: &str) -> Result<String, String> {
        Ok(self.optional_text(key)?.unwrap_or_else(|| default.to_owned()))
    }

    /// Token ids: one, a list, or none.
    pub(super) fn token_ids(&mut self, key: &str) -> Result<Vec<u32>, String> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match &value {
            Value::Array(several) => several.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| wrong(key, &value, "a token id or a list of them"))
    }

    /// A key that may be absent, and has one value that this crate computes.
    pub(super) fn only(&mut self, key: &str, supported: impl Into<Value>) -> Result<(), String> {
        let supported = supported.into();
        match self.take(key) {
            Some(found) if found != supported => {
                Err(format!("{key} is {found}, only {supported} is supported"))
            }
            _ => Ok(()),
        }
    }

    /// A key that may be absent and else repeats what others say.
    pub(super) fn derived(&mut self, key: &str, expected: usize) -> Result<(), String> {
        match self.optional_size(key)? {
            Some(found) if found != expected => {
                Err(format!("{key} is {found}, expected {expected} by the other keys"))
            }
            _ => Ok(()),
        }
    }

    /// `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
    pub(super) fn rope(&mut self) -> Result<Rope, String> {
        let interleaved = self.flag_or("rope_interleave", true)?;
        let outer_theta = self.optional_number("rope_theta")?;
        let (new, old) = (self.take("rope_parameters"), self.take("rope_scaling"));
        let mut inner = Self::new(new.or(old).unwrap_or_else(|| Value::Object(Map::new())))
            .map_err(|e| format!("rope_parameters: {e}"))?;
        let theta = inner.optional_number("rope_theta")?.or(outer_theta).unwrap_or(10_000.0);
        if !(theta > 1.0 && theta.is_finite()) {
            return Err(format!("rope_theta is {theta}, expected more than 1"));
        }
        let older = inner.optional_text("type")?;
        let kind = inner.optional_text("rope_type")?.or(older);
        let yarn = match kind.as_deref().unwrap_or("default") {
            "default" => None,
            "yarn" => Some(inner.yarn()?),
            other => return Err(format!("rope_type `{other}`, expected default or yarn")),
        };
        match inner.0.keys().next() {
            Some(key) => Err(format!("rope_parameters: unknown key `{key}`")),
            None => Ok(Rope { theta, interleaved, yarn }),
        }
    }

    fn yarn(&mut self) -> Result<Yarn, String> {
        let factor = self.optional_number("factor")?;
        let factor = self.required("rope_parameters.factor", factor, "a number")?;
        let original_context = self.size("original_max_position_embeddings")?;
        if !(factor >= 1.0 && factor.is_finite()) || original_context == 0 {
            return Err(format!(
                "rope_parameters: factor {factor} of {original_context} positions, expected at least 1 of at least 1"
            ));
        }
        Ok(Yarn {
            factor,
            original_context,
            beta_fast: self.number_or("beta_fast", 32.0)?,
            beta_slow: self.number_or("beta_slow", 1.0)?,
            mscale: self.optional_number("mscale")?,
            mscale_all_dim: self.optional_number("mscale_all_dim")?,
            attention_factor: self.optional_number("attention_factor")?,
            truncate: self.flag_or("truncate", true)?,
        })
    }

    /// Of `quantization_config`; the activations' scheme is that of another machine's kernels.
    pub(super) fn fp8_block(&mut self) -> Result<Option<[usize; 2]>, String> {
        let Some(value) = self.take("quantization_config") else { return Ok(None) };
        let method = value["quant_method"].as_str().unwrap_or_default();
        if method != "fp8" || value["fmt"].as_str().is_some_and(|fmt| fmt != "e4m3") {
            return Err(format!(
                "quantization_config is {value}, expected quant_method fp8 and fmt e4m3"
            ));
        }
        let side = |at: usize| {
            value["weight_block_size"][at]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|&n| n > 0)
        };
        match (side(0), side(1)) {
            (Some(rows), Some(cols)) => Ok(Some([rows, cols])),
            _ => Err("quantization_config.weight_block_size: expected two sizes, as [128, 128]"
                .to_owned()),
        }
    }

    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.keys().find(|key| !NO_MATTER.contains(&key.as_str())) {
            Some(key) => {
                Err(format!("unknown key `{key}`: what it asks for would not be computed"))
            }
            None => Ok(()),
        }
    }
}

fn wrong(key: &str, found: &Value, expected: &str) -> String {
    format!("{key} is {found}, expected {expected}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
