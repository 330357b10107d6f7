#!/usr/bin/env python3
"""Fits a line to points, and can be suspended at any step: an example for docs/JOBS.md.

    ff2ctl job run --local --suspend-after 1 -- python3 docs/examples/train.py

The ten lines of the contract are `load`, `save` and what follows "asked to make room". With PyTorch the state is
`{"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}`, and `pickle.dump` and
`pickle.load` are `torch.save` and `torch.load`.
"""

import os
import pickle
import time

RANK = int(os.environ["RANK"])
CHECKPOINT = os.path.join(os.environ["FF2_CHECKPOINT"], "last.pt")
STEPS = int(os.environ.get("STEPS", "300"))


def save(state):
    """The old checkpoint stays until the new one is whole."""
    with open(CHECKPOINT + ".new", "wb") as file:
        pickle.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(CHECKPOINT + ".new", CHECKPOINT)


def load():
    """Where the last attempt was, or the beginning."""
    if not os.path.exists(CHECKPOINT):
        return {"step": 0, "slope": 0.0, "offset": 0.0}
    with open(CHECKPOINT, "rb") as file:
        return pickle.load(file)


def train(state):
    """One step of gradient descent on y = 3 x + 1."""
    points = [(x / 10, 3 * x / 10 + 1) for x in range(-10, 11)]
    slope, offset = state["slope"], state["offset"]
    errors = [(slope * x + offset - y, x) for x, y in points]
    state["slope"] -= 0.1 * sum(error * x for error, x in errors) / len(errors)
    state["offset"] -= 0.1 * sum(error for error, _ in errors) / len(errors)
    state["step"] += 1


state = load()
print(f"rank {RANK} starts at step {state['step']}, attempt {os.environ['FF2_ATTEMPT']}", flush=True)
while state["step"] < STEPS:
    train(state)
    time.sleep(0.01)
    if RANK == 0 and state["step"] % 100 == 0:
        save(state)
    # Asked to make room: rank 0 saves and says so, which ends all ranks at once.
    if RANK == 0 and os.path.exists(os.environ["FF2_SUSPEND"]):
        save(state)
        open(os.environ["FF2_ACK"], "w").close()
print(f"rank {RANK} is done: y = {state['slope']:.6f} x + {state['offset']:.6f}", flush=True)
