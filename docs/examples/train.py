#!/usr/bin/env python3
"""Fits a line to points, and can be suspended at any step: an example for docs/JOBS.md.

    ff2ctl job run --local --suspend-after 1 -- python3 docs/examples/train.py

The ten lines of the contract are `load`, `save` and what follows "asked to make room". With PyTorch the state is
`{"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}`, and `pickle.dumps` and
`pickle.load` are `torch.save` and `torch.load`.

`slot`, and what follows "once in each slot", are for those that told the scheduler how often they save (`--checkpoint`):
a copy of the state is written beside the training, as fast as the job may.
"""

import os
import pickle
import threading
import time

RANK = int(os.environ["RANK"])
CHECKPOINT = os.path.join(os.environ["FF2_CHECKPOINT"], "last.pt")
STEPS = int(os.environ.get("STEPS", "300"))


LEAVE_OFF = threading.Event()  # what is written beside the training is old: there will be a last one


def save(state, bytes_per_s=1e12):
    """The old checkpoint stays until the new one is whole."""
    data, began = pickle.dumps(state), time.time()
    with open(CHECKPOINT + ".new", "wb") as file:
        for at in range(0, len(data), 1 << 20):
            time.sleep(max(0, began + at / bytes_per_s - time.time()))
            if LEAVE_OFF.is_set():
                return
            file.write(data[at : at + (1 << 20)])
        file.flush()
        os.fsync(file.fileno())
    os.replace(CHECKPOINT + ".new", CHECKPOINT)


def slot(since, now):
    """Whether the job's slot begins between these times, and how fast it may write; None if it has no slot."""
    try:
        with open(os.environ["FF2_SLOT"]) as file:
            every, phase, _, bytes_per_s = map(int, file.read().split())
    except FileNotFoundError:
        return None
    return (1000 * now - phase) % every < 1000 * (now - since), bytes_per_s


def room():
    """How fast the job may write when it makes room, if anybody said so."""
    with open(os.environ["FF2_SUSPEND"]) as file:
        return int((file.read().split() + ["1000000000000"])[1])


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
looked, writer = time.time(), None
while state["step"] < STEPS:
    train(state)
    time.sleep(0.01)
    # Once in each slot, if the scheduler gave one; else every hundred steps.
    now = time.time()
    due, bytes_per_s = slot(looked, now) or (state["step"] % 100 == 0, 1e12)
    looked = now
    if RANK == 0 and due and not (writer and writer.is_alive()):
        writer = threading.Thread(target=save, args=(dict(state), bytes_per_s))
        writer.start()
    # Asked to make room: rank 0 saves and says so, which ends all ranks at once.
    if RANK == 0 and os.path.exists(os.environ["FF2_SUSPEND"]):
        LEAVE_OFF.set()
        if writer:
            writer.join()
        LEAVE_OFF.clear()
        save(state, room())
        open(os.environ["FF2_ACK"], "w").close()
LEAVE_OFF.set()
print(f"rank {RANK} is done: y = {state['slope']:.6f} x + {state['offset']:.6f}", flush=True)
