"""Artifacts in transformers.js under Node: greedy tokens, the names of variants, the example."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.runtime.session import Session
from gpt_export.targets.transformers_js import DTYPES
from gpt_export_models.tokenizer import Gpt2Tokenizer, pad

from tests.consumers.conftest import Record
from tests.consumers.exported import CACHED, STEPS, Exported, column
from tests.consumers.javascript.conftest import ROOT, SCRIPTS, Script

NAME = "transformers.js"
TEXTS = ["Every effort moves you", "In the", "The quick brown fox jumps over"]


def job(exported: Exported, prompts: list[Any], dtype: str | None = "fp32") -> dict[str, Any]:
    given = exported.job(prompts)
    return {"folder": given["folder"], "steps": STEPS, "pad_id": given["pad_id"], "prompts": prompts, "dtype": dtype}


def sessions_tokens(folder: Path, variant: str, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens by plain onnxruntime on the same file, as one left-padded batch."""
    ids, mask = pad(prompts, side="left")
    steps = Session.open(folder, variant=variant).generate(ids, attention_mask=mask, max_new_tokens=STEPS)
    return np.stack(list(steps), axis=1).tolist()


@pytest.fixture(scope="module")
def answers(ask: Script, exported: Callable[[str], Exported]) -> dict[str, Any]:
    """After one prompt and after a batch, by kind; and the library's version."""
    jobs = [job(exported(kind), prompts) for kind in CACHED for prompts in (exported(kind).one, exported(kind).batch)]
    answer = ask("generate", {"jobs": jobs})
    return {"version": answer["version"], **dict(zip(CACHED, _pairs(answer["tokens"]), strict=True))}


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


@pytest.mark.parametrize("kind", CACHED)
def test_greedy_tokens_are_eagers(
    kind: str, answers: dict[str, Any], exported: Callable[[str], Exported], compatibility: Record
) -> None:
    one, batch = answers[kind]
    assert one == exported(kind).eager(exported(kind).one)
    assert batch == exported(kind).eager(exported(kind).batch)
    compatibility(consumer=NAME, version=answers["version"], variant=column(kind), outcome="pass", what="prompt, batch")


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS], ids=["one text", "a batch of texts"])
def test_the_pipeline_continues_texts_as_eager_does(
    texts: list[str], ask: Script, exported: Callable[[str], Exported]
) -> None:
    made, tokenizer = exported("gpt2"), Gpt2Tokenizer()
    (found,) = ask("generate", {"jobs": [job(made, texts)]})["tokens"]
    eager = made.eager([tokenizer.encode(text) for text in texts])
    assert found == [tokenizer.decode(ids) for ids in eager]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "fp32"])
def test_variants_give_the_tokens_that_plain_onnxruntime_gives(
    variant: str, ask: Script, fast: Exported, compatibility: Record
) -> None:
    answer = ask("generate", {"jobs": [job(fast, prompts, DTYPES[variant]) for prompts in (fast.one, fast.batch)]})
    assert answer["tokens"] == [sessions_tokens(fast.folder, variant, prompts) for prompts in (fast.one, fast.batch)]
    compatibility(consumer=NAME, version=answer["version"], variant=variant, outcome="pass", what="prompt, batch")


def test_the_wasm_default_is_the_int8_variant(node_folder: Path) -> None:
    # On WebAssembly nobody names a dtype, and the library looks for model_quantized.onnx: that has to be int8.
    source = (node_folder / "node_modules/@huggingface/transformers/dist/transformers.web.js").read_text("utf-8")
    assert DTYPES["int8"] == "q8"
    assert 'q8: "_quantized"' in source.replace("[DATA_TYPES.q8]", "q8")
    assert "wasm: DATA_TYPES.q8" in source.replace("[DEVICE_TYPES.wasm]", "wasm")


def test_the_example_continues_a_prompt(
    node: Callable[..., subprocess.CompletedProcess[str]], exported: Callable[[str], Exported]
) -> None:
    made, tokenizer = exported("gpt2"), Gpt2Tokenizer()
    done = node(ROOT / "examples/node/continue.mjs", made.folder, TEXTS[0])
    assert done.returncode == 0, done.stderr
    eager = made.eager([tokenizer.encode(TEXTS[0])])[0]
    assert done.stdout.startswith(TEXTS[0] + tokenizer.decode(eager))
    assert "40 tokens" in done.stderr


@pytest.mark.parametrize("args", [(), ("nowhere",)])
def test_the_example_fails_in_a_sentence(
    args: tuple[str, ...], node: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = node(ROOT / "examples/node/continue.mjs", *args)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_examples_ask_for_the_versions_that_are_tested() -> None:
    tested = _dependencies(SCRIPTS)
    for folder in (ROOT / "examples/node", ROOT / "exporter/gpt_export/serving/web"):
        wanted = _dependencies(folder)
        assert wanted
        assert wanted.items() <= tested.items(), folder


def _dependencies(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "package.json").read_text("utf-8"))["dependencies"])
