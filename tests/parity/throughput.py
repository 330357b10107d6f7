"""Times generation and prefill of a model with `transformers`, as jobs/engine/examples/throughput.rs does with ours.

Run: python tests/parity/throughput.py FOLDER [THREADS]   (the example has written the model to FOLDER)
"""

import sys
import time

import torch
from transformers import DeepseekV3ForCausalLM

folder, threads = sys.argv[1], int((sys.argv[2:] + ["1"])[0])
torch.set_num_threads(threads)
model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
vocab = model.config.vocab_size


def prompts(count, length):
    return torch.tensor([[(i + 1) * (s + 7) * 7919 % vocab for i in range(length)] for s in range(count)])


def timed(name, ids, new):
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                           do_sample=False, pad_token_id=0)
        tokens = ids.numel() if new == 1 else len(ids) * new
        best = max(best, tokens / (time.perf_counter() - start))
    print(f"{name}: {best:.1f} tokens/s")


print(f"transformers, {threads} threads")
timed("single stream", prompts(1, 32), 64)
timed("batch of 16", prompts(16, 32), 64)
timed("prefill of 1024", prompts(1, 1024), 1)
