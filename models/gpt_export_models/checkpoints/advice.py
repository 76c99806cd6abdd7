"""What to do with files that are not read: what they say of themselves, and the way that exists for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some

_SAVED = "save_pretrained(OUT), and export OUT"
_LOADED = "AutoModelForCausalLM.from_pretrained"
_FLOATS = "take the float weights that it was made from, and let the export quantise them (--precision int8,int4), or"
_DEQUANTISE: Mapping[str, str] = {
    "bitsandbytes": f"dequantise them first: {_LOADED}(FOLDER).dequantize().{_SAVED}",
    "gptq": "dequantise them first, with GPTQModel (gptqmodel.utils.model_dequant), and export the result",
    "awq": "dequantise them first, with GPTQModel (gptqmodel.utils.model_dequant), and export the result",
    "fp8": f"dequantise them first: {_LOADED}(FOLDER, "
    f"quantization_config=FineGrainedFP8Config(dequantize=True)).{_SAVED}",
    "mxfp4": f"dequantise them first: {_LOADED}(FOLDER, quantization_config=Mxfp4Config(dequantize=True)).{_SAVED}",
}
"""By quant_method, what transformers or its makers have for it."""
_HEAD = re.compile(r"For(?!CausalLM|ConditionalGeneration)[A-Z]\w*|DoubleHeadsModel")
"""Of a class of transformers that scores something else than the next token."""

_ELSEWHERE: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"model\.ckpt.*\.(index|meta)|.*\.data-\d+-of-\d+"), "a TensorFlow checkpoint",
     "convert it first: with transformers 4, python -m transformers.models.gpt2."
     "convert_gpt2_original_tf_checkpoint_to_pytorch; or load it as the book does and save model.state_dict()"),
    (re.compile(r".*\.h5"), "weights of TensorFlow (HDF5)",
     f"convert them first, with transformers 4 and TensorFlow: {_LOADED}(FOLDER, from_tf=True).{_SAVED}"),
    (re.compile(r".*\.msgpack"), "weights of flax",
     f"convert them first, with transformers 4 and flax: {_LOADED}(FOLDER, from_flax=True).{_SAVED}"),
    (re.compile(r".*\.gguf"), "a GGUF file of llama.cpp",
     f"convert it first, with transformers and gguf: {_LOADED}(FOLDER, gguf_file=NAME).{_SAVED}"),
    (re.compile(r".*\.onnx"), "an ONNX model",
     "compare it with its source by gpt-export validate FILE --against SOURCE, or look at it with gpt-export "
     "lint FILE"),
    (re.compile(r".*\.tflite"), "a TensorFlow Lite model", "export the model that it was made from"),
)  # fmt: skip
_MAGIC: tuple[tuple[bytes, str], ...] = ((b"GGUF", "x.gguf"), (b"\x89HDF\r\n\x1a\n", "x.h5"))

PEFT = re.compile(r"\.(lora_[AB]|lora_embedding_[AB])\b|\.base_layer\.|^base_model\.model\.")
"""In the names of a model that PEFT has wrapped."""
_CLASS = "export it through its own class: gpt-export onnx package.module:factory --weights {path}"
_NAMES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (PEFT, "the state dict of a PEFT model",
     "save it with model.merge_and_unload().save_pretrained(OUT), and export OUT; or pass the folder of PEFT's "
     "save_pretrained as --adapter of its base"),
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ weights", f"{_FLOATS} {_DEQUANTISE['gptq']}"),
    (re.compile(r"\.(absmax|quant_map|quant_state\.\w+|SCB)$"), "bitsandbytes weights",
     f"{_FLOATS} {_DEQUANTISE['bitsandbytes']}"),
    (re.compile(r"^blk\.\d+\."), "the tensors of a GGUF file",
     f"convert it first, with transformers and gguf: {_LOADED}(FOLDER, gguf_file=NAME).{_SAVED}"),
    (re.compile(r"attn\.c_q\.weight$"), "nanochat or a kin of it (separate queries, keys and values over GPT-2's "
        "names)", _CLASS),
    (re.compile(r"(^|\.)layers\.\d+\.attention\.w[qkvo]\."), "a Llama as Meta wrote it",
     "convert it with transformers' convert_llama_weights_to_hf and export that folder, or " + _CLASS),
    (re.compile(r"\.(self_attn|self_attention|attention)\.\w+(\.\w+)*\.(weight|bias)$|^(gpt_neox|model|transformer)\.(layers|h)\."),
     "a decoder of Hugging Face's of another architecture than GPT-2",
     "put its config.json beside it and pass the folder, which transformers reads, or " + _CLASS),
    (re.compile(r"^\d+$"), "a dict of numbered tensors", "save model.state_dict() with torch.save"),
)  # fmt: skip


def refuse_other_files(folder: Path) -> None:
    """Refuses a folder without weights that are read, by what is there.

    Raises:
        CheckpointError: it holds files of a kind that another program writes.
    """
    for pattern, what, remedy in _ELSEWHERE:
        if found := sorted(file.name for file in folder.iterdir() if pattern.fullmatch(file.name)):
            raise CheckpointError(f"{folder} holds {what} ({some(found, limit=2)}), which is not read; {remedy}")


def refuse_other_file(file: Path, head: bytes) -> None:
    """Refuses a file that another program wrote, by its first bytes or its name.

    Raises:
        CheckpointError: it is of such a kind.
    """
    name = next((name for magic, name in _MAGIC if head.startswith(magic)), file.name)
    for pattern, what, remedy in _ELSEWHERE:
        if pattern.fullmatch(name):
            raise CheckpointError(f"{file} is {what}, which is not read; {remedy}")


def asks_for_code(values: Mapping[str, Any]) -> bool:
    """Whether a configuration names a class of model of the folder's own (`auto_map`), or says what nobody can read."""
    stated = values.get("auto_map")
    return any("Model" in str(name) for name in stated) if isinstance(stated, Mapping | list) else bool(stated)


def refuse_configuration(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuses a folder whose config.json says that it holds quantised weights, or a head that scores no next token.

    Raises:
        CheckpointError: it says so.
    """
    kind = values.get("model_type")
    if quantised := values.get("quantization_config"):
        method = str(quantised.get("quant_method", "unknown")) if isinstance(quantised, Mapping) else "unknown"
        if method == "unknown" and isinstance(quantised, Mapping) and any("load_in_" in key for key in quantised):
            method = "bitsandbytes"
        way = _DEQUANTISE.get(method, "dequantise them first, with what quantised them").replace(
            "FOLDER", f"'{folder}'"
        )
        raise CheckpointError(
            f"{folder} holds quantised weights of a {kind} (quantization_config in config.json: "
            f"{some([method])}), which are not read; {_FLOATS} {way}"
        )
    stated = values.get("architectures")
    named = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    if heads := [name for name in named if _HEAD.search(name)]:
        name = some([heads[0]])
        # without a padding token it takes one row alone; -1 is none of the ids, so that the last token is the last one
        more = ", pad_token_id=-1" if values.get("pad_token_id") is None and "Sequence" in name else ""
        raise CheckpointError(
            f"{folder} is a {name} (architectures in config.json, model_type {kind}), which gives no next token; "
            "export it as a module: make() in my_model.py returns "
            f"transformers.{name}.from_pretrained('{folder}'{more}), and then gpt-export onnx my_model:make"
        )


def what_names_say(path: Path, names: Iterable[str]) -> str:
    """What tensors of these names are, and what to do with them, for the end of a sentence."""
    names = list(names)
    for pattern, what, remedy in _NAMES:
        if any(pattern.search(name) for name in names):
            return f"is {what}; {remedy.format(path=path)}"
    shown = some(names, limit=5) or "nothing"
    if not names:
        return f"holds {shown}; save model.state_dict() with torch.save"
    return f"holds no GPT of a known family ({{families}}) but {shown}; {_CLASS.format(path=path)}"
