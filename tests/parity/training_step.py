"""Times training steps of `training_step.json` with PyTorch, as jobs/model/examples/training_step.rs does with ours.

Run: python tests/parity/training_step.py [THREADS] [STEPS]
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

threads, steps = (int(x) for x in (sys.argv[1:] + ["1", "10"][len(sys.argv) - 1:])[:2])
torch.set_num_threads(threads)
options = json.loads((Path(__file__).parent / "training_step.json").read_text())
options.pop("model_type")
model = DeepseekV3ForCausalLM(DeepseekV3Config(**options)).float().train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
ids = torch.tensor([[i * 7919 % options["vocab_size"] for i in range(4 * 256)]]).view(4, 256)
times = []
for _ in range(steps):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    times.append(1e3 * (time.perf_counter() - start))
parameters = sum(p.numel() for p in model.parameters())
print(f"{parameters} parameters, {threads} threads: median {statistics.median(times):.1f} ms a step, loss {loss:.4f}")
