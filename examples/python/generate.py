"""Continues a prompt with an artifact: numpy, onnxruntime and tokenizers, nothing of gpt-export.

python generate.py artifacts/gpt2 "Every effort moves you" 20
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, prompt, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
end = json.loads((folder / "config.json").read_text())["eos_token_id"]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # errors alone: a warning tells that num_logits_to_keep may be overridden
session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", options, providers=["CPUExecutionProvider"])
pasts = [value for value in session.get_inputs() if value.name.startswith("past_key_values")]
cache = {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in pasts}

ids = tokenizer.encode(prompt).ids
new = np.array([ids], np.int64)  # the first step reads the prompt, each further one the token before
for _ in range(count):
    positions = np.arange(len(ids) - new.shape[1], len(ids))[None]
    feed = {"input_ids": new, "attention_mask": np.ones((1, len(ids)), np.int64), "position_ids": positions}
    logits, *present = session.run(None, feed | cache)
    cache = dict(zip(cache, present, strict=True))
    ids.append(int(logits[0, -1].argmax()))
    if ids[-1] == end:
        break
    new = np.array([ids[-1:]], np.int64)
print(tokenizer.decode(ids))
