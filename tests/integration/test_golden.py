"""The book's golden case at its real size: seed 123, "Hello, I am", ten greedy tokens, from every form of the model."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gpt_export.runtime.session import Session
from gpt_export_models.config import GPT_CONFIG_124M
from gpt_export_models.gpt import GPTModel

from tests.conftest import GPT_EXPORT, Run

PROMPT = "Hello, I am"
PROMPT_IDS = [15496, 11, 314, 716]
GOLDEN = [27018, 24086, 47843, 30961, 42348, 7267, 49706, 43231, 47062, 34657]
TEXT = " Featureiman Byeswickattribute argue logger Normandy Compton analogous"


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., Run]) -> Iterator[Path]:
    """gpt2-124m with its cache and its TorchScript. The gate is off to save time; other tests have it on."""
    yield from _exported(tmp_path_factory, run_command, "--torchscript")


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., Run]) -> Iterator[Path]:
    yield from _exported(tmp_path_factory, run_command, "--no-cache")


def _exported(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., Run], choice: str) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("golden")
    run = run_command("onnx", "gpt2-124m", "--output", folder / "a", "--gate", "off", choice)
    assert run.code == 0, run.err
    yield folder / "a"
    shutil.rmtree(folder)  # half a gigabyte or more


def greedy(logits: Callable[[np.ndarray], np.ndarray]) -> list[int]:
    """Ten greedy tokens of a model that sees everything at every step."""
    ids = [*PROMPT_IDS]
    for _ in GOLDEN:
        ids.append(int(logits(np.array([ids]))[0, -1].argmax()))
    return ids[len(PROMPT_IDS) :]


def of_module(module: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def logits(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(ids)).numpy()

    return logits


def test_eager() -> None:
    torch.manual_seed(123)
    assert greedy(of_module(GPTModel(GPT_CONFIG_124M).eval())) == GOLDEN


def test_the_books_own_class() -> None:
    chapter = pytest.importorskip("llms_from_scratch.ch04", reason="the book's package: pip install llms-from-scratch")
    torch.manual_seed(123)
    assert greedy(of_module(chapter.GPTModel(GPT_CONFIG_124M).eval())) == GOLDEN


def test_torchscript(cached: Path) -> None:
    assert greedy(of_module(torch.jit.load(str(cached / "torchscript" / "model.pt")))) == GOLDEN


def test_onnx_cached(cached: Path) -> None:
    session = Session.open(cached)
    assert session.cache is not None
    steps = session.generate(np.array([PROMPT_IDS]), max_new_tokens=10)
    assert [int(chosen[0]) for chosen in steps] == GOLDEN
    assert greedy(session.logits) == GOLDEN


def test_onnx_uncached(uncached: Path) -> None:
    session = Session.open(uncached)
    assert session.cache is None
    steps = session.generate(np.array([PROMPT_IDS]), max_new_tokens=10)
    assert [int(chosen[0]) for chosen in steps] == GOLDEN


def test_the_command_line(cached: Path, run_command: Callable[..., Run]) -> None:
    run = run_command("generate", cached, PROMPT, "--max-new-tokens", 10)
    assert (run.code, run.out) == (0, f"{PROMPT}{TEXT}\n")
    run = run_command("generate", cached, PROMPT, "Every effort moves you", "--max-new-tokens", 10, "--json")
    first, second = run.json()["continuations"]
    assert (first["ids"], first["text"]) == (GOLDEN, TEXT)
    alone = run_command("generate", cached, "Every effort moves you", "--max-new-tokens", 10, "--json")
    assert second == alone.json()["continuations"][0]


def test_the_file_is_as_large_as_the_weights(cached: Path) -> None:
    weights = sum(parameter.numel() * 4 for parameter in GPTModel(GPT_CONFIG_124M).parameters())
    size = sum(path.stat().st_size for path in (cached / "onnx").iterdir())
    assert weights <= size <= 1.01 * weights


def test_tokens_are_told_as_they_come_and_ctrl_c_ends_it(cached: Path) -> None:
    command = [GPT_EXPORT, "generate", str(cached), PROMPT, "--max-new-tokens", "900"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = process.stdout.read(len(PROMPT + TEXT))  # long before the end
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert told.decode() == PROMPT + TEXT
    assert process.returncode == 130
    assert rest.endswith(b"\n")
    assert errors.decode().strip().splitlines()[-1] == "Error: interrupted"


def test_a_reader_that_leaves_is_no_error_message(cached: Path) -> None:
    command = [GPT_EXPORT, "generate", str(cached), PROMPT, "--max-new-tokens", "900"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(len(PROMPT))
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""
