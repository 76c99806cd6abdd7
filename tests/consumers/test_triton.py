"""config.pbtxt by Triton's own schema: it says of the graph what the graph is. No server is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.targets import triton
from gpt_export.targets.package import package

from tests.consumers.conftest import Consumer, Record
from tests.consumers.exported import Exported
from tests.exporter.targets.manifests import facts

KINDS = ("gpt2", "padded", "uncached")
WHAT = "the configuration by Triton's schema, the graph in onnxruntime; no server"


@pytest.mark.parametrize("kind", KINDS)
def test_the_repository_describes_the_graph(
    kind: str, exported: Callable[[str], Exported], consumer: Consumer, tmp_path: Path, compatibility: Record
) -> None:
    made = package(exported(kind).folder, "triton", tmp_path)
    answer = consumer("triton_config", [str(made.path)])
    (found,) = answer["models"]
    assert found["told"] == found["had"]
    assert found["name"] == made.path.name
    assert found["backend"] == "onnxruntime"
    assert found["max_batch_size"] == triton.MAX_BATCH_SIZE
    assert found["batches"]
    compatibility(consumer="Triton", version=answer["version"], variant="fp32", outcome="pass", what=WHAT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_repository_of_every_precision_describes_its_graph(
    variant: str, fast: Exported, consumer: Consumer, tmp_path: Path, compatibility: Record
) -> None:
    if variant not in fast.facts.variants:
        pytest.skip(f"this export has no {variant}, it has {', '.join(fast.facts.variants)}")
    made = package(fast.folder, "triton", tmp_path, variant=variant)
    answer = consumer("triton_config", [str(made.path)])
    (found,) = answer["models"]
    assert found["told"] == found["had"]
    compatibility(consumer="Triton", version=answer["version"], variant=variant, outcome="pass", what=WHAT)


def test_the_repository_with_external_data_is_whole(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    made = package(exported("gpt2").folder, "triton", tmp_path)
    assert set(made.files) == {"config.pbtxt", "1/model.onnx", "1/model.onnx_data"}


def test_a_configuration_of_another_graph_is_told_apart(
    exported: Callable[[str], Exported], consumer: Consumer, tmp_path: Path
) -> None:
    made = package(exported("padded").folder, "triton", tmp_path)
    text = (made.path / "config.pbtxt").read_text("utf-8")
    (made.path / "config.pbtxt").write_text(text.replace("TYPE_FP32", "TYPE_FP16", 1), encoding="utf-8")
    (found,) = consumer("triton_config", [str(made.path)])["models"]
    assert found["told"] != found["had"]


def test_a_static_first_dim_is_not_batched() -> None:
    variant = facts().variants["fp32"]
    fixed = dict(variant) | {"outputs": [{"name": "logits", "dtype": "float16", "dims": [1, "sequence_length", 7]}]}
    text = triton.config("it", fixed)
    assert "max_batch_size: 0" in text
    assert "dynamic_batching" not in text
    assert "dims: [ 1, -1, 7 ]" in text
    assert "TYPE_FP16" in text


def test_a_word_that_is_not_in_the_schema_is_refused(
    exported: Callable[[str], Exported], consumers_python: Path, tmp_path: Path
) -> None:
    made = package(exported("padded").folder, "triton", tmp_path)
    code = (
        "import sys; from google.protobuf import text_format; from tritonclient.grpc import model_config_pb2 as m;"
        "text_format.Parse(sys.stdin.read(), m.ModelConfig())"
    )
    text = (made.path / "config.pbtxt").read_text("utf-8")
    for given, code_expected in ((text, 0), (text.replace("data_type", "datatype"), 1)):
        done = subprocess.run(
            [str(consumers_python), "-I", "-c", code], input=given, text=True, capture_output=True, check=False
        )
        assert done.returncode == code_expected
