"""Greedy tokens from Optimum's ORTModelForCausalLM. Jobs come as JSON on stdin; tokens go as JSON to stdout."""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import PurePosixPath

import torch
from optimum.onnxruntime import ORTModelForCausalLM

warnings.simplefilter("ignore")


def batch(prompts):
    """Prompts padded on the left, as Optimum's documentation has it."""
    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


results = []
for job in json.load(sys.stdin):
    named = {} if job["default"] else {"file_name": PurePosixPath(job["path"]).name}
    model = ORTModelForCausalLM.from_pretrained(job["folder"], use_cache=job.get("cached", True), **named)
    assert model.model_path.name == PurePosixPath(job["path"]).name, model.model_path
    prompt = batch(job["prompts"])
    found = model.generate(**prompt, max_new_tokens=job["steps"], do_sample=False)
    results.append(found[:, prompt["input_ids"].shape[1] :].tolist())
json.dump({"version": version("optimum-onnx"), "tokens": results}, sys.stdout)
