"""Makes the small reference models and what Python `transformers` computes with them on a CPU.

Run: python tests/parity/make_reference.py [FOLDER]   (torch, transformers 5, safetensors)

Each model is a folder in Hugging Face layout (weights in bf16, as the Hub has them; computed in f32), beside it
`reference.safetensors` with `input_ids`, `logits`, `hidden.N`, `decode_logits`, `greedy`, `loss` and
`grad.<tensor name>`, as `ff2-train inspect` writes them.

`v3-mtp` has modules of multi-token prediction, which `transformers` leaves out: here they are as section 2.2 of the
report on DeepSeek-V3 (arXiv 2412.19437) has them, around layers of `transformers`. Its reference is `loss`, `mtp_loss`
(the mean of equation 24 over the modules) and the gradients of `loss` + MTP_WEIGHT `mtp_loss` (equation 25).
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer

BATCH, TOKENS, PREFILL, GENERATE = 2, 12, 5, 8
MTP_MODULES, MTP_WEIGHT = 2, 0.3

COMMON = dict(
    vocab_size=48, hidden_size=32, intermediate_size=48, moe_intermediate_size=8, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2,
    first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6,
    max_position_embeddings=128, bos_token_id=0, eos_token_id=None, pad_token_id=None,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=8, beta_fast=32,
            beta_slow=1, mscale=1.0, mscale_all_dim=0.7)
V3 = (DeepseekV3Config, DeepseekV3ForCausalLM)
V2 = (DeepseekV2Config, DeepseekV2ForCausalLM)
MODELS = {
    "v3": (V3, dict(n_shared_experts=1)),
    "v3-yarn": (V3, dict(n_shared_experts=1, rope_parameters=YARN)),
    "v3-no-q-lora": (V3, dict(n_shared_experts=1, q_lora_rank=None)),
    "v2": (V2, dict(n_shared_experts=2, topk_method="group_limited_greedy", routed_scaling_factor=4.0)),
}

WITH_MTP = dict(n_shared_experts=1, num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
                topk_group=1)


def random_model(family, options, seed):
    """A model whose weights are exactly representable in bf16, so that all readers start from the same."""
    torch.manual_seed(seed)
    config_class, model_class = family
    model = model_class(config_class(**{**COMMON, **options}, num_nextn_predict_layers=0)
                        if config_class is DeepseekV3Config else config_class(**COMMON | options)).float().eval()
    randomise(model)
    return model


def randomise(model):
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif "e_score_correction_bias" in name:
                weight.copy_(0.1 * torch.randn_like(weight))
            elif "inv_freq" not in name:
                weight.copy_(torch.randn_like(weight) * (1.0 if "embed" in name else weight.shape[-1] ** -0.5))
            if "inv_freq" not in name:
                weight.copy_(weight.bfloat16().float())


def by_file_name(tensors):
    """Under the names of the files: `transformers` keeps the experts of a layer in one tensor."""
    found = {}
    for name, tensor in tensors:
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                prefix = name.removesuffix("gate_up_proj")
                found[f"{prefix}{expert}.gate_proj.weight"] = gate.clone()
                found[f"{prefix}{expert}.up_proj.weight"] = up.clone()
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(tensor):
                found[f"{name.removesuffix('down_proj')}{expert}.down_proj.weight"] = down.clone()
        else:
            found[name] = tensor.clone()
    return found


def gradients(model, prefix=""):
    grads = ((f"grad.{prefix}{name}", weight.grad if weight.grad is not None else torch.zeros_like(weight))
             for name, weight in model.named_parameters())
    return by_file_name(grads)


class Mtp(torch.nn.Module):
    """Module k: from the state of token i and the embedding of token i + k to what predicts token i + k + 1."""

    def __init__(self, config, layer):
        super().__init__()
        self.enorm, self.hnorm = (torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps) for _ in range(2))
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.layer = DeepseekV3DecoderLayer(config, layer)
        self.shared_head = torch.nn.ModuleDict({"norm": torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)})

    def forward(self, hidden, embedded, rotary):
        """The state of the module (equations 21 and 22), and what the main model's head gets of it (23)."""
        # Released weights have the embedding's half first.
        joined = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], -1))
        count = joined.shape[1]
        positions = torch.arange(count)[None]
        mask = torch.full((count, count), -torch.inf).triu(1)[None, None]
        state = self.layer(joined, attention_mask=mask, position_ids=positions,
                           position_embeddings=rotary(joined, positions))
        state = state[0] if isinstance(state, tuple) else state
        return state, self.shared_head["norm"](state)

    def named(self, tensors):
        """In the files the layer's tensors stand beside the module's own."""
        return [(name.removeprefix("layer."), tensor) for name, tensor in tensors]


def mtp_reference(folder):
    torch.manual_seed(len(MODELS))
    model = random_model(V3, WITH_MTP, len(MODELS))
    config = model.config
    config._attn_implementation = "eager"
    modules = [Mtp(config, config.num_hidden_layers + number).float().eval() for number in range(MTP_MODULES)]
    for module in modules:
        randomise(module)
    ids = torch.randint(0, COMMON["vocab_size"], (BATCH, TOKENS))
    output = model(ids, labels=ids, output_hidden_states=True, use_cache=False)
    # Of the main model: behind its last norm, as the modules of released weights take it.
    state, losses = output.hidden_states[-1], []
    for depth, module in enumerate(modules, 1):
        state, normed = module(state[:, :TOKENS - depth], model.model.embed_tokens(ids[:, depth:]),
                               model.model.rotary_emb)
        logits = model.lm_head(normed[:, :-1])
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, depth + 1:].flatten()))
    mtp_loss = torch.stack(losses).mean()
    (output.loss + MTP_WEIGHT * mtp_loss).backward()
    found = {"input_ids": ids, "loss": output.loss, "mtp_loss": mtp_loss} | gradients(model)
    weights = {}
    for number, module in enumerate(modules):
        prefix = f"model.layers.{config.num_hidden_layers + number}."
        found |= {name.replace(f"{prefix}layer.", prefix): grad for name, grad in gradients(module, prefix).items()}
        named = by_file_name(module.named(module.state_dict().items()))
        weights |= {prefix + name: tensor.bfloat16().contiguous() for name, tensor in named.items()}
    found = {name: tensor.detach().contiguous() for name, tensor in found.items()}
    model.bfloat16().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    file = folder / "model.safetensors"
    save_file(load_file(file) | weights, file, metadata={"format": "pt"})
    keys = json.loads((folder / "config.json").read_text())
    keys["num_nextn_predict_layers"] = MTP_MODULES
    (folder / "config.json").write_text(json.dumps(keys, indent=2, sort_keys=True) + "\n")
    save_file(found, folder / "reference.safetensors")
    print("v3-mtp", "loss", float(found["loss"]), "mtp_loss", float(found["mtp_loss"]))


def reference(model):
    ids = torch.randint(0, COMMON["vocab_size"], (BATCH, TOKENS))
    found = {"input_ids": ids}
    output = model(ids, labels=ids, output_hidden_states=True, use_cache=False)
    found["logits"], found["loss"] = output.logits, output.loss
    for number, hidden in enumerate(output.hidden_states):
        found[f"hidden.{number}"] = hidden
    output.loss.backward()
    found |= gradients(model)
    with torch.no_grad():
        step = model(ids[:, :PREFILL], use_cache=True)
        decoded = [step.logits]
        for at in range(PREFILL, TOKENS):
            step = model(ids[:, at:at + 1], past_key_values=step.past_key_values, use_cache=True)
            decoded.append(step.logits)
        found["decode_logits"] = torch.cat(decoded, dim=1)
        text = ids
        for _ in range(GENERATE):
            text = torch.cat([text, model(text, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
        found["greedy"] = text[:, TOKENS:]
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "reference"
    for seed, (name, (family, options)) in enumerate(MODELS.items()):
        model = random_model(family, options, seed)
        found = reference(model)
        # One of them in shards, as large models come.
        shard = "40KB" if name == "v3" else "1GB"
        model.bfloat16().save_pretrained(folder / name, max_shard_size=shard)
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        save_file(found, folder / name / "reference.safetensors")
        print(name, "loss", float(found["loss"]))
    mtp_reference(folder / "v3-mtp")


if __name__ == "__main__":
    main()
