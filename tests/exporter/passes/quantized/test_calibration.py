"""A text through a trained model: what it must be, and that the rounding it leads to is the better one."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt_export.errors import ConfigError
from gpt_export.gate.limits import LIMITS
from gpt_export.passes.quantized.calibration import calibrate
from gpt_export.pipeline import calibration_text, graphs, stages
from gpt_export.pipeline.calibration_text import calibration_windows
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.variants import in_profile
from gpt_export.sources.source import Source
from gpt_export.weights.quantize.rounding import to_nearest
from gpt_export.weights.quantize.schemes import PLANS
from gpt_export.weights.quantize.weights import Codes
from gpt_export_models.blank import filled
from gpt_export_models.gpt import GPTModel
from torch.nn import functional

from tests.conftest import Run
from tests.trained_gpt import CALIBRATION, CONFIG, HELD_OUT, TEXTS, language

PLAN = PLANS["int4"]


@pytest.fixture(scope="module")
def calibrated(trained_source: Source) -> Mapping[tuple[str, ...], Codes]:
    return codes_of(trained_source)


def codes_of(source: Source) -> Mapping[tuple[str, ...], Codes]:
    config = stages.settled(ExportConfig(precisions=("int4",)), source)
    base = in_profile(graphs.build_graph(source, config), source, config)
    return calibrate(base, source.weights, calibration_windows(source, CALIBRATION), PLAN)


def perplexity(source: Source, codes: Mapping[tuple[str, ...], Codes]) -> float:
    """Of the model with these codes in place of its matrices, on a text that nobody has seen."""
    weights = dict(source.weights)
    for names, (integers, scales) in codes.items():
        whole = (integers * scales.unsqueeze(-1)).reshape(len(integers), -1)
        lengths = [len(weights[name]) for name in names]
        for name, part in zip(names, whole.split(lengths), strict=True):
            weights[name] = part[:, : weights[name].shape[1]].contiguous()
    weights |= {name: weights[first] for name, first in source.first_names().items()}
    model = filled(lambda: GPTModel(CONFIG), weights)
    ids = torch.tensor(list(language(2500, seed=7).encode()))
    rows = ids[: len(ids) // CONFIG.context_length * CONFIG.context_length].view(-1, CONFIG.context_length)
    with torch.no_grad():
        logits = model(rows)[:, :-1].flatten(0, 1)
    return math.exp(functional.cross_entropy(logits, rows[:, 1:].flatten()))


def test_every_matrix_of_the_file_is_calibrated(calibrated: Mapping[tuple[str, ...], Codes]) -> None:
    block = "trf_blocks.{}.{}.weight"
    wanted = {("tok_emb.weight",)}
    for layer in range(CONFIG.n_layers):
        wanted.add(tuple(block.format(layer, f"att.W_{name}") for name in ("query", "key", "value")))
        wanted |= {(block.format(layer, name),) for name in ("att.out_proj", "ff.layers.0", "ff.layers.2")}
    assert set(calibrated) == wanted


def test_inside_the_blocks_a_text_makes_the_better_rounding(
    trained_source: Source, calibrated: Mapping[tuple[str, ...], Codes]
) -> None:
    body = {names: codes for names, codes in calibrated.items() if "trf_blocks" in names[0]}
    weights = trained_source.weights
    nearest = {
        names: to_nearest(torch.cat([weights[name] for name in names]), PLAN.body(weights[names[0]].shape[1]))
        for names in body
    }
    eager, with_text, without = (perplexity(trained_source, codes) for codes in ({}, body, nearest))
    assert eager < with_text < without
    assert with_text - eager < 0.8 * (without - eager)


def test_the_source_stays_as_it_was_and_the_same_comes_out_again(
    trained_source: Source, calibrated: Mapping[tuple[str, ...], Codes]
) -> None:
    again = codes_of(trained_source)
    for names, codes in calibrated.items():
        assert all(torch.equal(a, b) for a, b in zip(codes, again[names], strict=True)), names
    wanted = trained_source.reference().state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in trained_source.weights.items())


SCRIPT = textwrap.dedent(
    """
    import sys
    import torch
    from pathlib import Path
    from gpt_export.sources.gpt import checkpoint_source
    from tests.exporter.passes.quantized.test_calibration import codes_of

    checkpoint, out, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    source = checkpoint_source(checkpoint, config_file=checkpoint.with_name("book.json"))
    torch.save(codes_of(source), out)
    assert torch.get_num_threads() == threads
    """
)
OTHER_PROCESSOR = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
"""Makes torch compute as on a processor with none of the instructions of the last fifteen years."""


def calibrated_elsewhere(checkpoint: Path, out: Path, threads: int, **environment: str) -> Mapping[Any, Codes]:
    """The codes and scales that a process with so many threads and another environment comes to."""
    path = os.pathsep.join([os.getcwd(), *sys.path])  # noqa: PTH109
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(out), str(threads)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path} | environment, check=True)
    found: Mapping[Any, Codes] = torch.load(out)
    return found


def test_threads_never_decide_a_code(
    trained_checkpoint: Path, calibrated: Mapping[tuple[str, ...], Codes], tmp_path: Path
) -> None:
    for threads in (1, 3):
        elsewhere = calibrated_elsewhere(trained_checkpoint, tmp_path / str(threads), threads)
        assert elsewhere.keys() == calibrated.keys()
        for names, codes in calibrated.items():
            assert all(torch.equal(a, b) for a, b in zip(codes, elsewhere[names], strict=True)), (threads, names)


def test_another_processor_decides_no_more_than_the_last_bits(
    trained_checkpoint: Path, calibrated: Mapping[tuple[str, ...], Codes], tmp_path: Path
) -> None:
    # The exception that docs/variants.md states: what layers read is computed in float32, by the processor's own order.
    # Whether it comes to that depends on the two processors, so what holds for every pair of them is what is tested.
    elsewhere = calibrated_elsewhere(trained_checkpoint, tmp_path / "codes", 1, **OTHER_PROCESSOR)
    assert elsewhere.keys() == calibrated.keys()
    for names, (codes, scales) in calibrated.items():
        others, other_scales = elsewhere[names]
        assert (codes != others).float().mean() < 0.01, names
        assert torch.isclose(scales, other_scales, rtol=1e-3, atol=0).float().mean() > 0.99, names


def test_no_more_is_read_than_promised(trained_source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_text, "MOST_TOKENS", 4 * CONFIG.context_length)
    windows = calibration_text.calibration_windows(trained_source, CALIBRATION)
    assert windows.shape == (4, CONFIG.context_length)
    data = CALIBRATION.encode()
    assert bytes(windows[0].tolist()) == data[: CONFIG.context_length]  # from the first to the last of it
    assert bytes(windows[-1].tolist()) in data[-2 * CONFIG.context_length :]


def test_a_model_without_a_tokenizer_cannot_be_calibrated(trained_source: Source) -> None:
    with pytest.raises(ConfigError, match="has no tokenizer, so no text can calibrate it; leave --calibration out"):
        calibration_windows(dataclasses.replace(trained_source, tokenizer=None), CALIBRATION)


def test_a_short_text_is_refused(trained_source: Source) -> None:
    with pytest.raises(ConfigError, match="has 700 tokens, at least 1024 are needed"):
        calibration_windows(trained_source, CALIBRATION[:700])


def test_a_calibrated_export_passes_its_gate_and_records_its_text(trained_source: Source, tmp_path: Path) -> None:
    config = ExportConfig(precisions=("fp32", "int4"), calibration=CALIBRATION, texts=TEXTS, corpus=HELD_OUT)
    artifact = stages.export(trained_source, config, tmp_path / "artifact")
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity["passed"]
    assert len(artifact.manifest.export["calibration"]) == 64
    (int4,) = (case for name, case in artifact.manifest.parity["targets"].items() if name == "int4")
    assert 0 < abs(int4["perplexity_change"]) < LIMITS["int4"].perplexity_change


def test_the_command_line_reads_the_text_and_refuses_a_short_one(
    cli: Callable[..., Run], trained_checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(CALIBRATION[:500], encoding="utf-8")
    config = trained_checkpoint.with_name("book.json")
    run = cli(
        "onnx", trained_checkpoint, "--config", config, "--precision", "int4", "--calibration", text,
        "--output", tmp_path / "out",
    )  # fmt: skip
    run.refused(2, "the calibration text has 500 tokens", "pass a longer one")
    assert not (tmp_path / "out").exists()
