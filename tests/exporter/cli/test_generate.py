"""`gpt-export generate` as a person and as a script meet it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gpt_export.runtime.session import Session

from tests.byte_gpt import CONTEXT, END_ID
from tests.conftest import GPT_EXPORT, Run, tree
from tests.test_imports import WITHOUT


def greedy(artifact: Path, *prompts: bytes, steps: int) -> list[list[int]]:
    """What the session says, each prompt alone."""
    session = Session.open(artifact)
    return [
        [int(chosen[0]) for chosen in session.generate(np.array([list(prompt)]), max_new_tokens=steps)]
        for prompt in prompts
    ]


def text_of(ids: list[int]) -> str:
    """The text of byte tokens up to the end of text."""
    return bytes(ids[: ids.index(END_ID)] if END_ID in ids else ids).decode("utf-8", "replace")


def test_one_prompt_is_printed_with_what_comes_after_it(cli: Callable[..., Run], byte_original: Path) -> None:
    (ids,) = greedy(byte_original, b"ab", steps=9)
    run = cli("generate", byte_original, "ab", "--max-new-tokens", 9)
    assert run.code == 0
    assert run.out == f"ab{text_of(ids)}\n"
    assert re.fullmatch(r"\d+ tokens?(, [\d.,]+ a second)?, \d+\.\d\d s to the first\n", run.err)


def test_several_prompts_are_printed_one_after_the_other(cli: Callable[..., Run], byte_original: Path) -> None:
    prompts = ("ab", "a longer one", "ü")
    rows = greedy(byte_original, *(prompt.encode() for prompt in prompts), steps=7)
    run = cli("generate", byte_original, *prompts, "--max-new-tokens", 7)
    assert run.code == 0
    assert run.out == "\n\n".join(prompt + text_of(ids) for prompt, ids in zip(prompts, rows, strict=True)) + "\n"


def test_json_is_complete_and_alone_on_stdout(run_command: Callable[..., Run], byte_original: Path) -> None:
    rows = greedy(byte_original, b"ab", b"xyz", steps=6)
    run = run_command("generate", byte_original, "ab", "xyz", "--max-new-tokens", 6, "--json", "--ignore-end-of-text")
    assert (run.code, run.err) == (0, "")
    found = run.json()["continuations"]
    assert [item["prompt"] for item in found] == ["ab", "xyz"]
    assert [item["prompt_ids"] for item in found] == [[97, 98], [120, 121, 122]]
    assert [item["ids"] for item in found] == rows
    assert [item["stop"] for item in found] == ["length", "length"]
    assert all(isinstance(item["text"], str) for item in found)


def test_ids_work_for_any_artifact(cli: Callable[..., Run], byte_original: Path, ids_alone: Path) -> None:
    (ids,) = greedy(byte_original, b"ab", steps=5)
    for artifact in (byte_original, ids_alone):  # the same weights
        run = cli("generate", artifact, "--ids", "97 98", "--max-new-tokens", 5)
        assert (run.code, run.out) == (0, " ".join(map(str, [97, 98, *ids])) + "\n")
    run = cli("generate", ids_alone, "--ids", "97,98", "--max-new-tokens", 5, "--json")
    assert run.json()["continuations"] == [
        {"prompt": "97,98", "prompt_ids": [97, 98], "ids": ids, "text": None, "stop": "length"}
    ]


def test_a_stop_ends_it(cli: Callable[..., Run], byte_original: Path) -> None:
    (ids,) = greedy(byte_original, b"ab", steps=9)
    stop = ids[4]
    run = cli("generate", byte_original, "--ids", "97 98", "--max-new-tokens", 9, "--stop", stop, "--json")
    found = run.json()["continuations"][0]
    assert found["stop"] == "stop"
    assert found["ids"] == ids[: ids.index(stop) + 1]
    assert cli("generate", byte_original, "ab", "--stop", "").refused(2, "a stop is empty")


def test_a_seed_makes_a_run_repeatable(cli: Callable[..., Run], byte_original: Path) -> None:
    settings = ("--max-new-tokens", 20, "--temperature", 2, "--top-k", 200, "--top-p", 0.99, "--ids", "--seed")
    runs = [cli("generate", byte_original, "97 98", *settings, seed).out for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_full_context_keeps_what_there_was_and_says_so(cli: Callable[..., Run], byte_original: Path) -> None:
    prompt = "a" * (CONTEXT - 2)
    (ids,) = greedy(byte_original, prompt.encode(), steps=3)
    settings = ("--max-new-tokens", 30, "--ignore-end-of-text")
    run = cli("generate", byte_original, "--ids", " ".join(["97"] * (CONTEXT - 2)), "--max-new-tokens", 30)
    assert run.out.split()[-3:] == list(map(str, ids))
    run.refused(1, f"the context of {CONTEXT} tokens is full after 3 new ones; ask for 3 instead of 30")
    run = cli("generate", byte_original, prompt, *settings)
    assert run.out.startswith(prompt)
    assert run.refused(1, "the context of ")
    run = cli("generate", byte_original, prompt, *settings, "--json")
    assert run.json()["error"]["type"] == "ContextError"
    assert run.json()["continuations"][0]["ids"] == ids
    assert run.json()["continuations"][0]["stop"] == "context"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([""], 2, "the text '' gives no token; pass a text with at least one character"),
        (["ab", ""], 2, "the text '' gives no token"),
        (["a" * (CONTEXT + 1)], 2, f"gives {CONTEXT + 1} tokens, the context is {CONTEXT}; shorten the text"),
        (["ab", "--temperature", "-1"], 2, "temperature -1.0 is out of range"),
        (["ab", "--top-k", "0"], 2, "top_k 0 is out of range"),
        (["ab", "--top-p", "0"], 2, "top_p 0.0 is out of range"),
        (["ab", "--variant", "q4"], 1, "has no variant 'q4'; it has fp32"),
        (["ab", "--ids"], 2, "'ab' is not a list of ids"),
        (["257", "--ids"], 2, "id 257 is outside the vocabulary; ids run from 0 to 256"),
        (["1", "--ids", "--stop", "x"], 2, "'x' is not a list of ids"),
        (["ab", "--max-new-tokens", "-1"], 2, "Invalid value for '--max-new-tokens'"),
        ([], 2, "Missing argument 'PROMPT...'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], code: int, words: str, cli: Callable[..., Run], byte_original: Path
) -> None:
    run = cli("generate", byte_original, *arguments)
    run.refused(code, words)
    assert run.out == ""


def test_an_artifact_of_ids_alone_asks_for_ids(cli: Callable[..., Run], ids_alone: Path) -> None:
    cli("generate", ids_alone, "ab").refused(2, 'it is for ids alone; pass ids, such as "1 2 3", with --ids')


def test_no_artifact_is_said(cli: Callable[..., Run], tmp_path: Path) -> None:
    cli("generate", tmp_path, "ab").refused(1, "is not an artifact: it has no manifest.json; name an artifact folder")
    cli("generate", tmp_path / "nothing", "ab").refused(1, "nothing does not exist; name an artifact folder")


def test_prompts_of_other_lengths_need_a_cache(cli: Callable[..., Run], byte_uncached: Path) -> None:
    assert cli("generate", byte_uncached, "ab", "cd", "--max-new-tokens", 3).code == 0
    cli("generate", byte_uncached, "ab", "c").refused(2, "takes no attention mask; pass rows of one length")


@pytest.mark.parametrize("prompts", [["ab"], ["ab", "cd"]])
def test_an_interruption_keeps_what_there_was(
    prompts: list[str], cli: Callable[..., Run], byte_original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_session: Session, ids: np.ndarray, **_settings: object) -> Iterator[np.ndarray]:
        yield np.full(len(ids), ord("!"))
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "generate", interrupted)
    run = cli("generate", byte_original, *prompts)
    assert run.code == 130
    assert run.out == "\n\n".join(f"{prompt}!" for prompt in prompts) + "\n"
    assert run.err.splitlines()[-1] == "Error: interrupted"


def test_it_needs_no_torch_and_writes_nothing(byte_original: Path) -> None:
    before = tree(byte_original)
    code = WITHOUT + "sys.argv = ['gpt-export', *sys.argv[2:]]\nfrom gpt_export.cli import main\nmain()"
    for name, word in (("torch,onnx,onnx_ir,transformers,safetensors", ""), ("numpy", "No module named 'numpy'")):
        arguments = ["generate", str(byte_original), "ab", "--json", "--max-new-tokens", "5"]
        run = subprocess.run(
            [sys.executable, "-c", code, name, *arguments], capture_output=True, text=True, check=False
        )
        assert word in run.stderr
        assert (run.returncode == 0) == (word == ""), run.stderr
        if not word:
            assert json.loads(run.stdout)["continuations"][0]["prompt"] == "ab"
    assert tree(byte_original) == before


def test_text_that_the_terminal_cannot_show_does_not_end_it(
    run_command: Callable[..., Run], byte_original: Path
) -> None:
    run = run_command("generate", byte_original, "a日", "--max-new-tokens", 5, env={"PYTHONIOENCODING": "latin-1"})
    assert run.code == 0
    assert "Traceback" not in run.err
    assert run.out.startswith("a?")


def test_a_prompt_comes_from_a_file_or_from_stdin(
    cli: Callable[..., Run], byte_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cli("generate", byte_original, "ab", "--max-new-tokens", 5).out
    (tmp_path / "prompt.txt").write_text("ab\n", encoding="utf-8")
    assert cli("generate", byte_original, "--file", tmp_path / "prompt.txt", "--max-new-tokens", 5).out == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("ab\n"))
    assert cli("generate", byte_original, "-", "--max-new-tokens", 5).out == expected


def test_samples_are_as_many_answers_that_differ(cli: Callable[..., Run], byte_original: Path) -> None:
    settings = ("--max-new-tokens", 6, "--samples", 3, "--seed", 1, "--ignore-end-of-text", "--json")
    found = cli("generate", byte_original, "ab", *settings).json()["continuations"]
    assert [item["prompt"] for item in found] == ["ab"] * 3
    assert len({tuple(item["ids"]) for item in found}) == 3


@pytest.mark.parametrize("given", [("--top-k", 200), ("--seed", 3), ("--min-p", 0.0001)])
def test_an_option_about_draws_draws(given: tuple[object, ...], cli: Callable[..., Run], byte_original: Path) -> None:
    settings = ("generate", byte_original, "--ids", "97 98", "--max-new-tokens", 20)
    assert cli(*settings, *given).out != cli(*settings).out


@pytest.mark.parametrize("variants", [("fp32", "int8"), ("int8", "int4")])
def test_the_first_variant_there_is_is_run(
    variants: tuple[str, ...], cli: Callable[..., Run], export_saved: Callable[..., Path]
) -> None:
    artifact = export_saved("-".join(variants), precisions=variants, gate="off")
    chosen = cli("generate", artifact, "ab", "--json", "--variant", variants[0])
    assert cli("generate", artifact, "ab", "--json").json() == chosen.json()


def test_lines_go_on_from_one_another(byte_original: Path) -> None:
    run = subprocess.run(
        [GPT_EXPORT, "generate", str(byte_original), "--interactive", "--ids", "--max-new-tokens", "3"],
        input="97 98\n\nx\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()[:2]
    assert (first + second).split() == list(map(str, greedy(byte_original, b"ab", steps=6)[0]))
    assert "'x' is not a list of ids" in run.stderr
    assert "Ctrl-D ends" in run.stderr
