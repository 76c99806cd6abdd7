"""kill -9 at any point loses and half-publishes nothing; readers never see half an artifact."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import gpt_export
import numpy as np
import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.staging import stage
from gpt_export.errors import ArtifactError, OutputError
from gpt_export.runtime.session import Session
from gpt_export_models import DummyGPTModel

from tests import samples
from tests.conftest import tree

STAGES = (
    "graph",
    "derive the cache",
    "passes",
    "write fp32",
    "write TorchScript",
    "compare weights",
    "run eager",
    "run onnx",
    "run torchscript",
    "publish",
)
VOCAB = 4_000
CONFIG = samples.TINY_CONFIG | {"vocab_size": VOCAB, "emb_dim": 64}
"""2 MB of weights: enough for every stage to last some milliseconds."""


def export(output: Path, seed: int, force: bool, stages: Connection | None = None, wait_at: str = "") -> None:
    """One run, in a process of its own: tells the stages as they begin, and waits at one of them for leave to go on."""
    module = samples.seeded(DummyGPTModel(CONFIG), spread=0.1 * seed)

    def on_stage(name: str) -> None:
        if stages:
            stages.send(name)
            if name == wait_at:
                stages.recv()

    gpt_export.export(
        module, output, context_length=samples.CONTEXT, vocab_size=VOCAB, name="x", force=force, on_stage=on_stage
    )


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that have torch imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gpt_export.pipeline.stages", "tests.exporter.pipeline.test_kill"])
    return context


@pytest.fixture(scope="module")
def wholes(forks: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What seeds 1 and 2 give when nobody disturbs them."""
    folder = tmp_path_factory.mktemp("wholes")
    for seed in (1, 2):
        process = forks.Process(target=export, args=(folder / str(seed), seed, False))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    return folder / "1", folder / "2"


@pytest.fixture
def started() -> Iterator[list[BaseProcess]]:
    """Processes that the test started; none outlives it."""
    processes: list[BaseProcess] = []
    yield processes
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()


def start(
    forks: ForkServerContext, started: list[BaseProcess], output: Path, seed: int, force: bool, wait_at: str = ""
) -> tuple[BaseProcess, Connection]:
    ours, theirs = forks.Pipe()
    process = forks.Process(target=export, args=(output, seed, force, theirs, wait_at))
    process.start()
    theirs.close()
    started.append(process)
    return process, ours


def kill_at(process: BaseProcess, stages: Connection, point: str, delay: float) -> None:
    while stages.poll(120):
        try:
            if stages.recv() == point:
                time.sleep(delay)
                break
        except EOFError:
            break
    process.kill()
    process.join()


def points() -> list[tuple[str, float]]:
    """Every stage once, each at a moment of its own."""
    moments = random.Random(2)
    return [(name, moments.choice([0.0, 0.002, 0.01, 0.03])) for name in STAGES] + [("publish", 0.001)]


def left_behind(output: Path) -> set[str]:
    return {path.name for path in output.parent.iterdir()} - {output.name}


@pytest.mark.parametrize(("point", "delay"), points())
def test_a_killed_export_publishes_all_or_nothing(
    point: str,
    delay: float,
    forks: ForkServerContext,
    started: list[BaseProcess],
    wholes: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "x"
    process, stages = start(forks, started, output, seed=1, force=False)
    kill_at(process, stages, point, delay)
    if output.exists():
        assert point == "publish"
        assert tree(output) == tree(wholes[0])
    assert len(left_behind(output)) <= 1
    assert all(name.startswith(".x.staging-") for name in left_behind(output))


@pytest.mark.parametrize(("point", "delay"), points())
def test_a_killed_replacement_leaves_the_old_artifact_or_the_new_one(
    point: str,
    delay: float,
    forks: ForkServerContext,
    started: list[BaseProcess],
    wholes: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "x"
    shutil.copytree(wholes[0], output)
    process, stages = start(forks, started, output, seed=2, force=True)
    kill_at(process, stages, point, delay)
    Artifact.open(output).verify()
    assert tree(output) in ([tree(wholes[0])] if point != "publish" else [tree(whole) for whole in wholes])
    assert all(name.startswith(".x.staging-") for name in left_behind(output))


def test_the_next_run_removes_what_killed_runs_left(
    forks: ForkServerContext, started: list[BaseProcess], wholes: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "x"
    for _ in range(2):
        process, stages = start(forks, started, output, seed=1, force=False, wait_at="run eager")
        kill_at(process, stages, "run eager", 0)
    assert len(left_behind(output)) == 1  # the second run removed what the first had left
    process, _ = start(forks, started, output, seed=2, force=False)
    process.join(120)
    assert left_behind(output) == set()
    assert tree(output) == tree(wholes[1])


def test_a_live_run_keeps_its_staging_folder_and_finds_the_output_taken(
    forks: ForkServerContext, started: list[BaseProcess], wholes: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "x"
    process, stages = start(forks, started, output, seed=1, force=False, wait_at="run eager")
    while stages.recv() != "run eager":
        pass
    (live,) = tmp_path.glob(".x.staging-*")
    other, _ = start(forks, started, output, seed=2, force=False)
    other.join(120)
    assert other.exitcode == 0
    assert live.is_dir()
    with pytest.raises(OutputError, match="exists"):
        export(output, seed=2, force=False)
    assert live.is_dir()
    stages.send("go on")
    process.join(120)
    assert process.exitcode == 1
    assert tree(output) == tree(wholes[1])
    assert left_behind(output) == set()


def exchange_again_and_again(output: Path, copies: tuple[Path, Path], stop: Connection) -> None:
    turn = 0
    while not stop.poll(0.1):
        turn += 1
        with stage(output, replace=True) as staged:
            shutil.copytree(copies[turn % 2], staged.folder, dirs_exist_ok=True)
            staged.publish()
    stop.send(turn)


def test_readers_never_see_half_an_artifact_while_it_is_replaced(
    forks: ForkServerContext, started: list[BaseProcess], tmp_path: Path
) -> None:
    copies = (tmp_path / "a", tmp_path / "b")
    for module, copy in zip((samples.tiny_dummy(), samples.tiny_gpt()), copies, strict=True):
        gpt_export.export(module, copy, context_length=samples.CONTEXT, vocab_size=samples.VOCAB, name="tiny")
    ids = samples.random_ids(1, 3)
    expected = {Artifact.open(copy).manifest.to_json(): Session.open(copy).logits(ids) for copy in copies}
    output = tmp_path / "out" / "x"
    shutil.copytree(copies[0], output)

    ours, theirs = forks.Pipe()
    writer = forks.Process(target=exchange_again_and_again, args=(output, copies, theirs))
    writer.start()
    started.append(writer)
    seen, looks, until = set(), 0, time.monotonic() + 4
    while time.monotonic() < until or (len(seen) < 2 and time.monotonic() < until + 60):
        for _ in range(200):
            assert os.path.isdir(output)  # noqa: PTH112 - as fast as can be
            looks += 1
        try:
            session = Session.open(output)
        except ArtifactError as error:  # a machine so busy that opening takes longer than replacing
            assert "was replaced 5 times while it was opened; open it again" in str(error)  # noqa: PT017
            continue
        manifest = session.manifest.to_json()
        assert np.allclose(session.logits(ids), expected[manifest], atol=1e-5)
        seen.add(manifest)
    ours.send("stop")
    turns = ours.recv()
    writer.join(60)
    assert writer.exitcode == 0
    assert turns >= 10
    assert looks >= 1000
    assert seen == expected.keys()
    assert left_behind(output) == set()
