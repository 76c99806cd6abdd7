"""Manifests are read by the schema that is published: what it refuses is refused in a sentence, the rest works."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpt_export.artifact.inspection import inspect_path
from gpt_export.artifact.inspection_text import inspection_text
from gpt_export.artifact.manifest_schema import MANIFEST_SCHEMA, schema_fault
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, GptExportError
from gpt_export.runtime.session import Session

from tests.exporter.artifact.test_artifact import rewrite

jsonschema = pytest.importorskip("jsonschema", reason="the oracle of the schema: pip install jsonschema")

JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**31, 10**40, "", "x", "a\0b", "../x", [], [1], [[]], {}, {"x": 1},
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within, containers before what they hold."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def changed(body: dict[str, Any], at: tuple[Any, ...], junk: Any) -> None:
    """Puts junk at a place, or takes the place away."""
    for key in at[:-1]:
        body = body[key]
    if junk is changed:
        del body[at[-1]]
    else:
        body[at[-1]] = junk


def body_of(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return body


def hostile(body: dict[str, Any], seed: int) -> list[tuple[tuple[Any, ...], Any]]:
    """Changes of the manifest: every part above the weights' layouts once, by junk that is drawn."""
    draw = random.Random(seed)
    chosen = [at for at in places(body) if "weights" not in at[:3] or draw.random() < 0.1]
    return [(at, draw.choice((*JUNK, changed))) for at in chosen]


def test_the_published_schema_is_the_code_s() -> None:
    from benches.manifest_schema_doc import PAGE, render

    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m benches.manifest_schema_doc"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(MANIFEST_SCHEMA)


@pytest.mark.parametrize("seed", [1, 2])
def test_our_check_and_that_of_jsonschema_agree(byte_original: Path, seed: int) -> None:
    oracle = jsonschema.Draft202012Validator(MANIFEST_SCHEMA)
    body = body_of(byte_original)
    for kind in ("inputs", "outputs"):
        del body["variants"]["fp32"][kind][2:]
    weights = body["variants"]["fp32"]["weights"]  # one of them with every part, which is enough for jsonschema's pace
    kept = next(iter(weights))
    body["variants"]["fp32"]["weights"] = {kept: weights[kept] | {"coded": {"bits": 4, "block": 32, "part": "codes"}}}
    assert schema_fault(body) is None
    assert oracle.is_valid(body)
    verdicts = set()
    for at, junk in hostile(body, seed):
        other = copy.deepcopy(body)
        changed(other, at, junk)
        fault = schema_fault(other)
        verdicts.add(fault is None)
        assert (fault is None) == oracle.is_valid(other), (at, junk, fault)
    assert verdicts == {True, False}


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_manifest_of_wrong_types_with_a_right_digest_is_refused_or_used(tiny: Path, seed: int) -> None:
    body = body_of(tiny)
    original = (tiny / "manifest.json").read_text()
    sentences = []
    for at, junk in hostile(body, seed):
        if at[0] in ("digest", "model_digest"):
            continue
        (tiny / "manifest.json").write_text(original)
        rewrite(tiny, lambda found, at=at, junk=junk: changed(found, at, junk), sign=True)
        try:
            artifact = Artifact.open(tiny)
            str(artifact)
            inspection_text(inspect_path(tiny))
            Session.of(artifact).logits([[1, 2]])
        except GptExportError as error:
            sentences.append(str(error))
    assert len(sentences) > 20
    assert not [said for said in sentences if "\n" in said]


@pytest.mark.parametrize(
    ("at", "junk", "words"),
    [
        (("model", "vocab_size"), 1.5, "model.vocab_size is 1.5, not integer"),
        (("model", "context_length"), 10**12, "not from 1 to 2147483647"),
        (("variants", "fp32", "cache"), {"n_layers": 1}, "lacks"),
        (("files", "onnx/model.onnx", "sha256"), "x", "which does not match"),
        (("parity",), [], "parity is a list, not object"),
        (("name",), "a\0b", "name is"),
    ],
)
def test_a_wrong_part_is_named(tiny: Path, at: tuple[str, ...], junk: object, words: str) -> None:
    rewrite(tiny, lambda body: changed(body, at, junk), sign=True)
    with pytest.raises(ArtifactError, match="is no manifest as gpt-export writes it") as caught:
        Artifact.open(tiny)
    assert words in str(caught.value)


def test_what_a_later_version_may_tell_is_let_through(tiny: Path) -> None:
    rewrite(tiny, lambda body: body["model"].update(mood="good"), sign=True)
    rewrite(tiny, lambda body: body["variants"]["fp32"].update(mood=[1, {}]), sign=True)
    Artifact.open(tiny)
