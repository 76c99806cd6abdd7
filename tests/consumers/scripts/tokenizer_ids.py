"""Token ids of texts, by every tokenizer that opens an artifact's files. Folder and texts come as JSON on stdin."""

import json
import sys
from importlib.metadata import version

import onnxruntime_genai as og
import tokenizers
from transformers import AutoTokenizer, GPT2Tokenizer

request = json.load(sys.stdin)
folder, texts = request["folder"], request["texts"]
whole = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
auto = AutoTokenizer.from_pretrained(folder)
slow = GPT2Tokenizer.from_pretrained(folder)
genai = og.Tokenizer(og.Model(folder))
json.dump(
    {
        "tokenizers": [version("tokenizers"), [entry.ids for entry in whole.encode_batch(texts)]],
        "transformers": [version("transformers"), auto(texts)["input_ids"]],
        "transformers, in Python": [version("transformers"), slow(texts)["input_ids"]],
        "onnxruntime-genai": [og.__version__, [genai.encode(text).tolist() for text in texts]],
        "padding": [auto.padding_side, auto.pad_token_id, auto.eos_token_id, auto.model_max_length],
    },
    sys.stdout,
)
