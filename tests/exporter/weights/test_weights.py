"""Where weights go: into the model file or beside it, aligned, once each, and never through the exporter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export_models import DummyGPTModel
from onnx import numpy_helper
from torch import Tensor, nn

from tests import samples

Export = Callable[..., Artifact]
MEGABYTE = 1_000_000


def external(folder: Path) -> dict[str, dict[str, str]]:
    """Location, offset and length of each initializer that lies outside the model file."""
    model = onnx.load(folder / "onnx" / "model.onnx", load_external_data=False)
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def test_weights_of_124m_lie_in_a_file_of_their_own_on_page_boundaries(artifact_124m: Path) -> None:
    places = external(artifact_124m)
    assert len(places) == 3
    end = 0
    for place in sorted(places.values(), key=lambda entry: int(entry["offset"])):
        assert place["location"] == "model.onnx_data"
        assert int(place["offset"]) % 4096 == 0
        assert int(place["offset"]) >= end
        end = int(place["offset"]) + int(place["length"])
    assert (artifact_124m / "onnx" / "model.onnx_data").stat().st_size == end
    assert (artifact_124m / "onnx" / "model.onnx").stat().st_size < 100_000


def test_the_stored_bytes_are_the_weights(artifact_124m: Path, dummy_124m: nn.Module) -> None:
    places = external(artifact_124m)
    stored = artifact_124m / "onnx" / "model.onnx_data"
    place = places["tok_emb.weight"]
    found = np.memmap(stored, np.float32, "r", int(place["offset"]), (50257, 768))
    assert (found == dummy_124m.tok_emb.weight.detach().numpy()).all()
    layouts = json.loads((artifact_124m / "manifest.json").read_text())["variants"]["fp32"]["weights"]
    (head,) = (name for name, layout in layouts.items() if layout["sources"] == ["out_head.weight"])
    assert layouts[head]["transposed"] is True
    found = np.memmap(stored, np.float32, "r", int(places[head]["offset"]), (768, 50257))
    assert (found[:, ::997] == dummy_124m.out_head.weight.detach().numpy().T[:, ::997]).all()


@pytest.mark.parametrize(
    ("rows", "files"), [(70_000, {"model.onnx"}), (90_000, {"model.onnx", "model.onnx_data"})], ids=["15 MB", "19 MB"]
)
def test_from_16_megabytes_on_there_is_a_second_file(rows: int, files: set[str], export_tiny: Export) -> None:
    class Table(samples.Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(rows, 50))

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.emb(ids)) + self.table[ids, :1]

    artifact = export_tiny(samples.seeded(Table()))
    size = rows * 50 * 4
    assert (size >= 16 * MEGABYTE) == (len(files) == 2)
    assert {path.name for path in (artifact.folder / "onnx").iterdir()} == files


def test_a_self_contained_file_holds_every_weight(export_tiny: Export) -> None:
    artifact = export_tiny(samples.tiny_dummy())
    assert external(artifact.folder) == {}
    arrays = [
        numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.folder / "onnx" / "model.onnx").graph.initializer
    ]
    for parameter in samples.tiny_dummy().parameters():
        expected = parameter.detach().numpy()
        assert any(
            (array.shape == expected.shape and (array == expected).all())
            or (array.shape == expected.T.shape and (array == expected.T).all())
            for array in arrays
        )


def test_a_tied_weight_is_stored_once(export_tiny: Export) -> None:
    model = onnx.load(export_tiny(samples.seeded(samples.Tied())).folder / "onnx" / "model.onnx")
    sizes = [tuple(sorted(tensor.dims)) for tensor in model.graph.initializer]
    assert sizes.count((8, samples.VOCAB)) == 1


def test_an_unused_weight_is_not_stored_and_noted(export_tiny: Export) -> None:
    artifact = export_tiny(samples.seeded(samples.Unused()))
    model = onnx.load(artifact.folder / "onnx" / "model.onnx")
    assert (3, 3) not in [tuple(tensor.dims) for tensor in model.graph.initializer]
    assert any("idle" in note for note in artifact.manifest.parity["notes"])


def test_types_of_buffers_survive(export_tiny: Export) -> None:
    model = onnx.load(export_tiny(samples.seeded(samples.Buffers())).folder / "onnx" / "model.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["order"] == onnx.TensorProto.INT64
    assert types["allowed"] == onnx.TensorProto.BOOL
    assert types["width_scale"] == onnx.TensorProto.FLOAT


def test_half_precision_weights_are_widened_exactly(export_tiny: Export) -> None:
    module = samples.seeded(samples.Half())
    model = onnx.load(export_tiny(module).folder / "onnx" / "model.onnx")
    (stored,) = (tensor for tensor in model.graph.initializer if tensor.name == "emb.weight")
    assert stored.data_type == onnx.TensorProto.FLOAT
    assert (onnx.numpy_helper.to_array(stored) == module.emb.weight.detach().float().numpy()).all()


MEASURE = textwrap.dedent(
    """
    import sys, threading, time
    import torch
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.pipeline.graphs import build_graph
    from gpt_export.sources.source import source_of_module
    from gpt_export_models import DummyGPTModel
    from tests import samples

    def anonymous_bytes():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

    def exported(width):
        config = samples.TINY_CONFIG | {"vocab_size": 100_000, "emb_dim": width}
        module = DummyGPTModel(config).eval()
        source = source_of_module(module, name="x", record={}, vocab_size=100_000, context_length=24)
        return source

    build_graph(exported(2), ExportConfig())  # imports and caches are not what is measured
    source = exported(640)  # 512 MB
    if sys.argv[1] == "control":
        ids = torch.zeros((1, 2), dtype=torch.int64)
        build = lambda: torch.onnx.export(torch.jit.script(source.reference()), (ids,), "/dev/null", dynamo=False)
    else:
        build = lambda: build_graph(source, ExportConfig())
    before = peak = anonymous_bytes()
    thread = threading.Thread(target=build)
    thread.start()
    while thread.is_alive():
        peak = max(peak, anonymous_bytes())
        time.sleep(0.001)
    print(before, peak - before)
    """
)


def peak_bytes(what: str) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, what],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    before, grown = map(int, run.stdout.split()[-2:])
    assert before > 512 * MEGABYTE
    return grown


def test_weights_never_enter_the_exporter() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is measured on Linux only; the meta device is checked in test_script")
    assert peak_bytes("ours") < 100 * MEGABYTE


def test_the_measurement_tells_an_export_with_weights() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is measured on Linux only")
    assert peak_bytes("control") > 256 * MEGABYTE


def test_a_tensor_of_several_chunks_is_written_whole(export_tiny: Export) -> None:
    # 20 MB: more than one chunk of 16 MB, and a last one that is not full.
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"vocab_size": 5011, "emb_dim": 1024}))
    artifact = export_tiny(module, vocab_size=5011, torchscript=False)
    assert artifact.manifest.parity["weights"]["mismatches"] == []
    artifact.verify()
