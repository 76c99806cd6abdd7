"""One folder, opened by programs that are not ours: their greedy tokens are the eager model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.runtime.session import Session
from gpt_export.targets import genai

from tests.consumers.conftest import Consumer, Record
from tests.consumers.exported import CACHED, STEPS, Exported, column

SCRIPTS = {"onnxruntime": "plain", "Optimum": "optimum_generate", "onnxruntime-genai": "genai_generate"}
NO_CACHE = "its decoder feeds one new token at a time, and a graph without a cache has forgotten the others"


@pytest.fixture(scope="module")
def answers(consumer: Consumer, exported: Callable[[str], Exported]) -> Callable[[str], Any]:
    """What a program made of the cached artifacts, by kind: its tokens after one prompt, and after a batch."""
    found: dict[str, Any] = {}

    def ask(name: str) -> Any:
        if name not in found:
            batches = [(kind, prompts) for kind in CACHED for prompts in _prompts(name, exported(kind))]
            answer = consumer(SCRIPTS[name], [exported(kind).job(prompts) for kind, prompts in batches])
            tokens: dict[str, list[Any]] = {}
            for (kind, _), rows in zip(batches, answer["tokens"], strict=True):
                tokens.setdefault(kind, []).append(rows)
            found[name] = {"version": answer["version"], "tokens": tokens}
        return found[name]

    return ask


def _prompts(name: str, exported: Exported) -> Iterable[list[list[int]]]:
    yield exported.one
    if name != "onnxruntime-genai" or exported.facts.end_id is not None:
        yield exported.batch
    else:
        yield exported.one  # it pads with a token, and a model of ids alone has none to spare


@pytest.mark.parametrize("kind", CACHED)
@pytest.mark.parametrize("name", SCRIPTS)
def test_greedy_tokens_are_eagers(
    name: str, kind: str, answers: Callable[[str], Any], exported: Callable[[str], Exported], compatibility: Record
) -> None:
    found = answers(name)
    for rows, prompts in zip(found["tokens"][kind], _prompts(name, exported(kind)), strict=True):
        assert rows == exported(kind).eager(prompts)
    compatibility(consumer=name, version=found["version"], variant=column(kind), outcome="pass", what="prompt, batch")


def test_padding_on_the_right_changes_no_token(consumer: Consumer, exported: Callable[[str], Exported]) -> None:
    made = exported("gpt2")
    (rows,) = consumer("plain", [made.job(made.batch, side="right")])["tokens"]
    assert rows == made.eager(made.batch)


@pytest.mark.parametrize("name", ["onnxruntime", "Optimum"])
def test_a_graph_without_a_cache_gives_the_same_tokens(
    name: str, consumer: Consumer, exported: Callable[[str], Exported]
) -> None:
    made = exported("uncached")
    (rows,) = consumer(SCRIPTS[name], [made.job(made.one, cached=False)])["tokens"]
    assert rows == made.eager(made.one)


def test_an_artifact_without_a_cache_has_no_genai_config(exported: Callable[[str], Exported]) -> None:
    folder = exported("uncached").folder
    assert (folder / "config.json").exists()
    assert not (folder / "genai_config.json").exists()
    assert not (folder / "generation_config.json").exists()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_precision_gives_the_tokens_of_plain_onnxruntime(
    name: str, variant: str, consumer: Consumer, fast: Exported, compatibility: Record
) -> None:
    found = fast.facts.variants.get(variant)
    if found is None:
        pytest.skip(f"this export has no {variant}, it has {', '.join(fast.facts.variants)}")
    more = {"overlay": genai.overlay(found)}
    jobs = [fast.job(prompts, variant, **more) for prompts in (fast.one, fast.batch)]
    if name == "onnxruntime-genai":  # it pads on the right, which may change what a quantised activation is scaled by
        plain = consumer("plain", [job | {"side": "right"} for job in jobs])
    else:
        plain = consumer("plain", jobs)
    answer = consumer(SCRIPTS[name], jobs)
    assert answer["tokens"] == plain["tokens"]
    if variant == "fp32":
        assert plain["tokens"] == [fast.eager(fast.one), fast.eager(fast.batch)]
    shared = (
        " with one buffer for past and present" if name == "onnxruntime-genai" and found.get("shared_cache") else ""
    )
    compatibility(
        consumer=name, version=answer["version"], variant=variant, outcome="pass", what=f"prompt, batch{shared}"
    )


SMALL = ("fp32-kv8", "int4-kv8")
"""Not int8: without VNNI, its products saturate where nobody asks for exact ones, as `Session` does."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_cache_of_8_bits_gives_the_tokens_of_our_session(
    name: str, consumer: Consumer, fast: Exported, compatibility: Record
) -> None:
    jobs = [fast.job(fast.one, variant, overlay=genai.overlay(fast.facts.variants[variant])) for variant in SMALL]
    answer = consumer(SCRIPTS[name], jobs)
    for variant, rows in zip(SMALL, answer["tokens"], strict=True):
        steps = Session.open(fast.folder, variant=variant).generate(fast.one, max_new_tokens=STEPS)
        assert rows == np.stack(list(steps), axis=1).tolist()
    compatibility(consumer=name, version=answer["version"], variant="kv8", outcome="pass", what="prompt, batch")


def test_the_eager_tokens_can_be_missed(consumer: Consumer, exported: Callable[[str], Exported]) -> None:
    made = exported("gpt2")
    other = [[*made.one[0][:-1], made.one[0][-1] + 1]]
    (rows,) = consumer("plain", [made.job(other)])["tokens"]
    assert rows != made.eager(made.one)
