"""Greedy tokens from onnxruntime and numpy alone. Jobs come as JSON on stdin; tokens go as JSON to stdout."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}


def greedy(session, prompts, steps, side):
    """The next `steps` tokens of every prompt, which run as one batch padded on a side."""
    longest = max(map(len, prompts))
    ids = np.zeros((len(prompts), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        where = slice(longest - len(prompt), None) if side == "left" else slice(0, len(prompt))
        ids[row, where], mask[row, where] = prompt, 1
    last = np.full(len(prompts), longest - 1) if side == "left" else mask.sum(1) - 1
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    pasts = [value for value in session.get_inputs() if value.name.startswith("past_key_values")]
    present = [np.zeros((len(prompts), p.shape[1], 0, p.shape[3]), TYPES[p.type]) for p in pasts]
    found = []
    for _ in range(steps):
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        feed.update(zip([p.name for p in pasts], present, strict=True))
        logits, *present = session.run(None, feed)
        ids = logits[np.arange(len(prompts)), last].argmax(-1)[:, None]
        found.append(ids)
        mask = np.concatenate([mask, np.ones_like(ids)], 1)
        positions = mask.sum(1, keepdims=True) - 1
        last = np.zeros(len(prompts), np.int64)
    return np.concatenate(found, 1).tolist()


def uncached(session, prompts, steps):
    """The same from a graph without a cache, a prompt at a time."""
    found = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(steps):
            (logits,) = session.run(None, {"input_ids": np.array([ids], np.int64)})
            ids.append(int(logits[0, -1].argmax()))
        found.append(ids[len(prompt) :])
    return found


results = []
for job in json.load(sys.stdin):
    session = onnxruntime.InferenceSession(Path(job["folder"]) / job["path"], providers=["CPUExecutionProvider"])
    if len(session.get_inputs()) == 1:
        results.append(uncached(session, job["prompts"], job["steps"]))
    else:
        results.append(greedy(session, job["prompts"], job["steps"], job.get("side", "left")))
json.dump({"version": version("onnxruntime"), "tokens": results}, sys.stdout)
