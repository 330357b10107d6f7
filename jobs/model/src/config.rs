//! What `config.json` says, with the keys of transformers 5 and the older ones of the Hub.

mod keys;

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::ModelError;
use keys::Keys;

/// The architecture. Later families (V3.2's indexer of sparse attention, V4) are variants to come: each decides its
/// blocks in one `match` where a layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Softmax gate.
    DeepseekV2,
    /// Sigmoid gate with a bias for choice, multi-token prediction. R1 has the same.
    DeepseekV3,
}

/// How the gate limits its choice to groups of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Any experts.
    Greedy,
    /// The best groups by their best expert (V2).
    GroupMax,
    /// The best groups by the sum of their two best experts (V3).
    GroupTopTwo,
}

/// A model's dimensions. Sizes are numbers of f32 or of things, angles in radians.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    pub vocab: usize,
    pub hidden: usize,
    /// Inner width of the feed-forward of dense layers, and of one expert.
    pub dense_inner: usize,
    pub expert_inner: usize,
    pub layers: usize,
    /// So many first layers have no experts.
    pub dense_layers: usize,
    pub heads: usize,
    /// Rank of the query's compression; None: queries are one product.
    pub q_lora: Option<usize>,
    pub kv_lora: usize,
    /// Dimensions of a head: without position, with rotary position (shared by all heads' keys), of values.
    pub qk_nope: usize,
    pub qk_rope: usize,
    pub v_head: usize,
    pub shared_experts: usize,
    pub routed_experts: usize,
    pub experts_per_token: usize,
    pub groups: usize,
    pub groups_per_token: usize,
    pub choice: Choice,
    /// Whether the chosen weights are brought to a sum of 1 before `routed_scale`.
    pub normalize_weights: bool,
    pub routed_scale: f32,
    pub rms_eps: f32,
    pub rope: Rope,
    /// Modules for multi-token prediction behind the last layer.
    pub mtp_layers: usize,
    /// The head is the embedding.
    pub tied_embedding: bool,
    pub max_positions: usize,
    pub initializer_range: f32,
    pub bos: Option<u32>,
    pub eos: Vec<u32>,
    /// Rows and columns of a block that shares one scale, where weights are stored as fp8.
    pub fp8_block: Option<[usize; 2]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Pairs are neighbours (0,1), (2,3)...; otherwise halves (0, d/2)...
    pub interleaved: bool,
    pub yarn: Option<Yarn>,
}

/// Stretching of the context (Peng et al. 2023).
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    pub factor: f64,
    pub original_context: usize,
    pub beta_fast: f64,
    pub beta_slow: f64,
    pub mscale: Option<f64>,
    pub mscale_all_dim: Option<f64>,
    pub attention_factor: Option<f64>,
    pub truncate: bool,
}

impl ModelConfig {
    /// Reads `config.json` of a model's folder.
    ///
    /// # Errors
    /// A file that cannot be read, is no JSON object, lacks a key, has one of another kind or one nobody knows, or
    /// describes something that this crate does not compute.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let bytes =
            fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let wrong = |detail: String| ModelError::Config { path: path.clone(), detail };
        let value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no JSON: {e}")))?;
        Self::from_json(value).map_err(wrong)
    }

    /// From the parsed file; an error says which key is wrong and what was expected.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let mut keys = Keys::new(value)?;
        let family = match keys.text("model_type")?.as_str() {
            "deepseek_v2" => Family::DeepseekV2,
            "deepseek_v3" => Family::DeepseekV3,
            other => {
                return Err(format!("model_type `{other}`, expected deepseek_v2 or deepseek_v3"));
            }
        };
        let v3 = family == Family::DeepseekV3;
        keys.only("hidden_act", "silu")?;
        keys.only("attention_bias", false)?;
        keys.only("mlp_bias", false)?;
        keys.only("use_mla", true)?;
        keys.only("moe_layer_freq", 1)?;
        keys.only("scoring_func", if v3 { "sigmoid" } else { "softmax" })?;
        let choice = match (
            v3,
            keys.text_or("topk_method", if v3 { "noaux_tc" } else { "greedy" })?.as_str(),
        ) {
            (true, "noaux_tc") => Choice::GroupTopTwo,
            (false, "greedy") => Choice::Greedy,
            (false, "group_limited_greedy") => Choice::GroupMax,
            (true, other) => return Err(format!("topk_method `{other}`, expected noaux_tc")),
            (false, other) => {
                return Err(format!(
                    "topk_method `{other}`, expected greedy or group_limited_greedy"
                ));
            }
        };
        let groups = keys.optional_size("n_group")?.unwrap_or(1);
        let config = Self {
            family,
            vocab: keys.size("vocab_size")?,
            hidden: keys.size("hidden_size")?,
            dense_inner: keys.size("intermediate_size")?,
            expert_inner: keys.size("moe_intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            dense_layers: keys.optional_size("first_k_dense_replace")?.unwrap_or(0),
            heads: keys.size("num_attention_heads")?,
            q_lora: keys.optional_size("q_lora_rank")?,
            kv_lora: keys.size("kv_lora_rank")?,
            qk_nope: keys.size("qk_nope_head_dim")?,
            qk_rope: keys.size("qk_rope_head_dim")?,
            v_head: keys.size("v_head_dim")?,
            shared_experts: keys.optional_size("n_shared_experts")?.unwrap_or(0),
            routed_experts: keys.size("n_routed_experts")?,
            experts_per_token: keys.size("num_experts_per_tok")?,
            groups,
            groups_per_token: keys.optional_size("topk_group")?.unwrap_or(groups),
            choice,
            // V2's published models do not, whatever the key says; transformers neither.
            normalize_weights: keys.flag_or("norm_topk_prob", v3)? && v3,
            routed_scale: keys.number_or("routed_scaling_factor", if v3 { 2.5 } else { 1.0 })?
                as f32,
            rms_eps: keys.number_or("rms_norm_eps", 1e-6)? as f32,
            rope: keys.rope()?,
            mtp_layers: keys.optional_size("num_nextn_predict_layers")?.unwrap_or(0),
            tied_embedding: keys.flag_or("tie_word_embeddings", false)?,
            max_positions: keys.optional_size("max_position_embeddings")?.unwrap_or(4096),
            initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
            bos: keys.token_ids("bos_token_id")?.first().copied(),
            eos: keys.token_ids("eos_token_id")?,
            fp8_block: keys.fp8_block()?,
        };
        keys.derived("num_key_value_heads", config.heads)?;
        keys.derived("head_dim", config.qk_rope)?;
        keys.derived("qk_head_dim", config.qk_nope + config.qk_rope)?;
        keys.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The same as `config.json`, with the keys of transformers 5. Weights are written as f32 or bf16, never as fp8.
    pub fn to_json(&self, dtype: &str) -> Value {
        let v3 = self.family == Family::DeepseekV3;
        let mut all = json!({
            "architectures": [if v3 { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" }],
            "model_type": if v3 { "deepseek_v3" } else { "deepseek_v2" },
            "dtype": dtype,
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.dense_inner,
            "moe_intermediate_size": self.expert_inner,
            "num_hidden_layers": self.layers,
            "first_k_dense_replace": self.dense_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "q_lora_rank": self.q_lora,
            "kv_lora_rank": self.kv_lora,
            "qk_nope_head_dim": self.qk_nope,
            "qk_rope_head_dim": self.qk_rope,
            "qk_head_dim": self.qk_nope + self.qk_rope,
            "head_dim": self.qk_rope,
            "v_head_dim": self.v_head,
            "n_shared_experts": self.shared_experts,
            "n_routed_experts": self.routed_experts,
            "num_experts_per_tok": self.experts_per_token,
            "n_group": self.groups,
            "topk_group": self.groups_per_token,
            "norm_topk_prob": self.normalize_weights,
            "routed_scaling_factor": decimal(self.routed_scale),
            "rms_norm_eps": decimal(self.rms_eps),
            "rope_parameters": self.rope.to_json(),
            "tie_word_embeddings": self.tied_embedding,
            "max_position_embeddings": self.max_positions,
            "initializer_range": decimal(self.initializer_range),
            "hidden_act": "silu",
            "attention_bias": false,
            "bos_token_id": self.bos,
            "eos_token_id": match self.eos.as_slice() {
                [] => Value::Null,
                [one] => json!(one),
                several => json!(several),
            },
        });
        if v3 {
            all["num_nextn_predict_layers"] = json!(self.mtp_layers);
            all["rope_interleave"] = json!(self.rope.interleaved);
        } else {
            let grouped = self.choice == Choice::GroupMax;
            all["topk_method"] = json!(if grouped { "group_limited_greedy" } else { "greedy" });
        }
        all
    }

    /// Whether a layer has experts. Modules for multi-token prediction count on behind the last layer.
    pub fn has_experts(&self, layer: usize) -> bool {
        layer >= self.dense_layers
    }

    /// KV cache of one token in all layers, as a share of what plain attention with the same heads keeps.
    pub fn kv_share(&self) -> f64 {
        (self.kv_lora + self.qk_rope) as f64 / (self.heads * (self.qk_nope + self.v_head)) as f64
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("vocab_size", self.vocab),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.dense_inner),
            ("moe_intermediate_size", self.expert_inner),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("q_lora_rank", self.q_lora.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora),
            ("qk_nope_head_dim", self.qk_nope),
            ("qk_rope_head_dim", self.qk_rope),
            ("v_head_dim", self.v_head),
            ("n_routed_experts", self.routed_experts),
            ("num_experts_per_tok", self.experts_per_token),
            ("n_group", self.groups),
            ("topk_group", self.groups_per_token),
        ];
        for (key, size) in positive {
            // Products of four sizes stay within an index.
            if size == 0 || size > 1 << 24 {
                return Err(format!("{key} is {size}, expected 1 to {}", 1 << 24));
            }
        }
        if !self.qk_rope.is_multiple_of(2) {
            return Err(format!("qk_rope_head_dim is {}, expected an even number", self.qk_rope));
        }
        let (experts, groups) = (self.routed_experts, self.groups);
        if !experts.is_multiple_of(groups) || self.groups_per_token > groups {
            let chosen = self.groups_per_token;
            return Err(format!(
                "n_routed_experts {experts}, n_group {groups}, topk_group {chosen}: expected groups of equal size, \
                 and no more chosen than there are"
            ));
        }
        let within = match self.choice {
            Choice::Greedy => experts,
            Choice::GroupMax | Choice::GroupTopTwo => experts / groups * self.groups_per_token,
        };
        if self.experts_per_token > within {
            let wanted = self.experts_per_token;
            return Err(format!(
                "num_experts_per_tok is {wanted}, expected at most the {within} in reach"
            ));
        }
        Ok(())
    }
}

impl Rope {
    fn to_json(&self) -> Value {
        let Some(yarn) = &self.yarn else {
            return json!({"rope_type": "default", "rope_theta": self.theta});
        };
        let mut all = json!({
            "rope_type": "yarn",
            "rope_theta": self.theta,
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original_context,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "truncate": yarn.truncate,
        });
        let optional = [
            ("mscale", yarn.mscale),
            ("mscale_all_dim", yarn.mscale_all_dim),
            ("attention_factor", yarn.attention_factor),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                all[key] = json!(value);
            }
        }
        all
    }
}

/// The shortest decimal that reads back as this f32: 1e-6 and not 9.999999974752427e-7.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

#[cfg(test)]
mod tests;
