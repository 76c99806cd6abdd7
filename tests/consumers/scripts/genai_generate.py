"""Greedy tokens from onnxruntime-genai. Jobs come as JSON on stdin; tokens go as JSON to stdout."""

import json
import sys

import numpy as np
import onnxruntime_genai as og


def greedy(model, prompts, steps, pad_id):
    """The next `steps` tokens of every prompt; a batch is padded on the right, as its tokenizer's batches are."""
    longest = max(map(len, prompts))
    ids = np.full((len(prompts), longest), 0 if pad_id is None else pad_id, np.int32)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=longest + steps, batch_size=len(prompts))
    generator = og.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    return [np.asarray(generator.get_sequence(row))[longest:].tolist() for row in range(len(prompts))]


results = []
for job in json.load(sys.stdin):
    config = og.Config(job["folder"])
    if job.get("overlay"):
        config.overlay(job["overlay"])
    results.append(greedy(og.Model(config), job["prompts"], job["steps"], job["pad_id"]))
json.dump({"version": og.__version__, "tokens": results}, sys.stdout)
