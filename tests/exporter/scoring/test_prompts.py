"""A file of prompts to a file of continuations: those of `Session.generate`, whoever makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import InputError, OutputError
from gpt_export.runtime.generation import GenerationConfig
from gpt_export.runtime.session import Session
from gpt_export.scoring.corpus_generate import ContinueSettings, Written, failed_path, generate_into
from gpt_export.scoring.inputs import open_prompts
from gpt_export.scoring.settings import EngineSettings

from tests.byte_gpt import CONTEXT, END_ID
from tests.conftest import Run
from tests.exporter.scoring.conftest import exact_losses

Killing = Callable[[int], Callable[[Any], None]]
RNG = np.random.default_rng(7)
PROMPTS = ["".join(map(chr, RNG.integers(32, 127, int(size)))) for size in RNG.integers(1, 34, 50)]
INLINE = EngineSettings(engine="inline")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "id": f"p{i}"}) + "\n" for i, text in enumerate(PROMPTS)))
    return path


def generate(
    artifact: Path, prompts: Path, output: Path, engine: EngineSettings = INLINE, *, how: Any = None, **config: Any
) -> Written:
    said = {"batch": 4, "part_prompts": 20} | (how or {})
    run = {key: said.pop(key) for key in ("resume", "strict", "on_progress") if key in said}
    settings = ContinueSettings(config=GenerationConfig(**({"max_new_tokens": 6} | config)), **said)
    return generate_into(Artifact.open(artifact), open_prompts(str(prompts), "prompt"), output, settings, engine, **run)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("config", [{}, {"temperature": 0.8, "seed": 5}, {"temperature": 1.0, "top_k": 9, "seed": 1}])
def test_each_line_is_what_the_session_generates(
    byte_original: Path, prompts: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    generate(byte_original, prompts, tmp_path / "out.jsonl", **config)
    session, found = Session.open(byte_original), lines(tmp_path / "out.jsonl")
    assert [(line["index"], line["id"], line["prompt"]) for line in found] == [
        (i, f"p{i}", text) for i, text in enumerate(PROMPTS)
    ]
    assert not (tmp_path / "out.jsonl.run").exists()
    for number in (0, 7, 31, 49):
        ids = np.tile(np.array([list(PROMPTS[number].encode())]), (number + 1, 1))  # the seed's row of that number
        steps = [int(step[-1]) for step in session.generate(ids, max_new_tokens=6, stop_ids={END_ID}, **config)]
        expected = steps[: steps.index(END_ID) + 1] if END_ID in steps else steps
        assert found[number]["ids"] == expected, number
        assert found[number]["tokens"] == len(expected)


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        (EngineSettings(workers=1), {}),
        (EngineSettings(workers=2), {}),
        (INLINE, {"batch": 13}),
        (INLINE, {"batch": 1, "part_prompts": 7}),
    ],
)
def test_the_bytes_are_the_same_by_any_workers_and_any_batch(
    byte_original: Path, prompts: Path, tmp_path: Path, engine: EngineSettings, how: dict[str, Any]
) -> None:
    config = {"temperature": 1.5, "seed": 3, "stops": tuple("aeiou0123456789")}
    generate(byte_original, prompts, tmp_path / "plain.jsonl", **config)
    generate(byte_original, prompts, tmp_path / "out.jsonl", engine, how=how, **config)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert len({line["finish_reason"] for line in lines(tmp_path / "out.jsonl")}) > 1


def test_the_bytes_are_the_same_when_workers_are_killed(
    byte_original: Path, prompts: Path, tmp_path: Path, killing: Killing
) -> None:
    generate(byte_original, prompts, tmp_path / "plain.jsonl")
    how = {"on_progress": killing(2)}
    generate(byte_original, prompts, tmp_path / "out.jsonl", EngineSettings(workers=2), how=how)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_run_that_was_stopped_goes_on_with_its_own_seed(byte_original: Path, prompts: Path, tmp_path: Path) -> None:
    output, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run" / "parts"

    def stop(_: object) -> None:
        if parts.exists() and any(parts.iterdir()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(byte_original, prompts, output, how={"on_progress": stop}, temperature=1.0)
    seed = json.loads((tmp_path / "out.jsonl.run" / "run.json").read_text())["config"]["seed"]
    assert not output.exists()
    with pytest.raises(OutputError, match=r"holds another run|holds this run already"):
        generate(byte_original, prompts, output, temperature=1.0)
    generate(byte_original, prompts, output, how={"resume": True}, temperature=1.0)
    generate(byte_original, prompts, tmp_path / "plain.jsonl", temperature=1.0, seed=seed)
    assert output.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        generate(byte_original, prompts, output)


def test_a_row_ends_where_the_context_does(byte_original: Path, prompts: Path, tmp_path: Path) -> None:
    generate(byte_original, prompts, tmp_path / "out.jsonl", max_new_tokens=60, ignore_end_of_text=True)
    for line, text in zip(lines(tmp_path / "out.jsonl"), PROMPTS, strict=True):
        assert (line["tokens"], line["finish_reason"]) == (CONTEXT - len(text) + 1, "context")
    generate(byte_original, prompts, tmp_path / "usual.jsonl", max_new_tokens=None, ignore_end_of_text=True)
    assert {line["finish_reason"] for line in lines(tmp_path / "usual.jsonl")} == {"length"}


def test_log_probabilities_are_those_of_the_logits(byte_original: Path, prompts: Path, tmp_path: Path) -> None:
    how = {"log_probabilities": True}
    generate(byte_original, prompts, tmp_path / "out.jsonl", how=how, temperature=2.0, seed=1)
    session = Session.open(byte_original)
    for line in lines(tmp_path / "out.jsonl")[:5]:
        ids = [*line["prompt"].encode(), *line["ids"]]
        exact = -exact_losses(session, ids)[-len(line["ids"]) :]
        np.testing.assert_allclose(line["log_probabilities"], exact, atol=1e-4)


def test_a_graph_without_a_cache_continues_the_same(
    byte_uncached: Path, byte_original: Path, prompts: Path, tmp_path: Path
) -> None:
    for name, artifact in (("out", byte_uncached), ("plain", byte_original)):
        generate(artifact, prompts, tmp_path / f"{name}.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_standard_operators_continue_the_same(
    byte_portable: Path, byte_original: Path, prompts: Path, tmp_path: Path
) -> None:
    for name, artifact in (("out", byte_portable), ("plain", byte_original)):
        generate(artifact, prompts, tmp_path / f"{name}.jsonl", how={"batch": 3}, stops=("a", "e"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_line_that_cannot_be_continued_is_a_line(byte_original: Path, tmp_path: Path) -> None:
    given = ['{"prompt": "a"}', '{"text": "b"}', "no", '{"prompt": ""}', '{"prompt": [1, 300]}', '{"prompt": [97]}']
    given.append(json.dumps({"prompt": "x" * (CONTEXT + 1)}))
    (tmp_path / "in.jsonl").write_text("\n".join(given))
    output = tmp_path / "out.jsonl"
    assert generate(byte_original, tmp_path / "in.jsonl", output).failed == 5
    found = lines(output)
    assert [line["index"] for line in found] == list(range(7))
    assert [line["finish_reason"] == "failed" for line in found] == [False, True, True, True, True, False, True]
    assert found[0]["ids"] == found[5]["ids"]
    reasons = [line["reason"] for line in lines(failed_path(output))]
    words = ["no field 'prompt'", "not JSON", "gives no token", "id 300 is outside", "shorten the text"]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
    with pytest.raises(InputError, match="no field 'prompt'"):
        generate(byte_original, tmp_path / "in.jsonl", tmp_path / "strict.jsonl", how={"strict": True})
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(InputError, match="there is no prompt"):
        generate(byte_original, tmp_path / "none.jsonl", tmp_path / "none-out.jsonl")


def test_an_artifact_of_ids_takes_ids(ids_alone: Path, byte_original: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": [97, 98]}\n')
    with pytest.raises(InputError, match="has no tokenizer"):
        generate(ids_alone, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    generate(ids_alone, tmp_path / "in.jsonl", tmp_path / "out.jsonl", how={"as_ids": True})
    generate(byte_original, tmp_path / "in.jsonl", tmp_path / "text.jsonl", ignore_end_of_text=True)
    ids, text = lines(tmp_path / "out.jsonl")[0], lines(tmp_path / "text.jsonl")[0]
    assert ids["ids"] == text["ids"]
    assert ids["text"] is None


def test_the_command_writes_the_file(
    cli: Callable[..., Run], byte_original: Path, prompts: Path, tmp_path: Path
) -> None:
    args = ("generate", byte_original, "--prompts", prompts, "--max-new-tokens", 6, "--workers", 1)
    run = cli(*args, "--output", tmp_path / "out.jsonl", "--json")
    assert run.json() == {
        "failed": 0,
        "lines": 50,
        "output": str(tmp_path / "out.jsonl"),
        "tokens": run.json()["tokens"],
    }
    generate(byte_original, prompts, tmp_path / "plain.jsonl", how={"batch": 32})
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    for wrong, words in (
        ((*args, "text", "--output", "x"), "given twice"),
        (args, "needs --output"),
        (("generate", byte_original), "Missing argument 'PROMPT...'"),
        (("generate", byte_original, "text", "--engine", "ray", "--resume"), "--resume, --engine needs --prompts"),
        (("generate", byte_original, "--prompts", tmp_path / "no.jsonl", "--output", "x"), "is no file of prompts"),
    ):
        refused = cli(*wrong)
        assert refused.code == 2
        assert words in refused.err
