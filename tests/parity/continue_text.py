"""Continues a prompt greedily with Python transformers, to be compared with what ff2 says of the same folder.

Run: python tests/parity/continue_text.py FOLDER PROMPT [TOKENS]        FOLDER as `ff2-train export` wrote it
     python tests/parity/continue_text.py FOLDER PROMPT [TOKENS] --input FILE   also writes `input_ids` for `inspect`
     python tests/parity/continue_text.py FOLDER PROMPT [TOKENS] --output FILE  compares with `greedy` of `inspect`
"""

import argparse
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("prompt")
parser.add_argument("tokens", nargs="?", type=int, default=32)
parser.add_argument("--input", help="file to write: the prompt for `ff2-train inspect --input`")
parser.add_argument("--output", help="file that `ff2-train inspect --out FILE --generate TOKENS` wrote")
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
ids = tokenizer(arguments.prompt, return_tensors="pt", add_special_tokens=False).input_ids
if arguments.input:
    save_file({"input_ids": ids}, arguments.input)
model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()
# `inspect` does not stop at the end of a text either.
model.generation_config.eos_token_id = None
with torch.no_grad():
    mask = torch.ones_like(ids)
    both = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=arguments.tokens)
theirs = both[0, ids.shape[1]:]
print(f"transformers: {arguments.prompt}{tokenizer.decode(theirs)}")
if arguments.output:
    ours = load_file(arguments.output)["greedy"][0].long()
    print(f"ff2:          {arguments.prompt}{tokenizer.decode(ours)}")
    if not torch.equal(ours, theirs):
        place = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
        sys.exit(f"they differ from token {place} on: {ours.tolist()}, transformers {theirs.tolist()}")
    print(f"the same {len(ours)} tokens")
