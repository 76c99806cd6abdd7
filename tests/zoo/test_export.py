"""Every animal leaves as an artifact that plain onnxruntime runs as its own code does, or in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gpt_export
import pytest
import torch

from tests.zoo import Animal, animals
from tests.zoo.plain import LARGEST, PlainModel, largest_difference

TAKEN = [animal for animal in animals() if animal.exports]
REFUSED = [animal for animal in animals() if not animal.exports]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads only wait for each other on modules as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("animal", TAKEN, ids=str)
def test_the_file_is_the_module_on_shapes_that_the_export_did_not_see(animal: Animal, tmp_path: Path) -> None:
    """Not by the gate, which is off: by onnxruntime and the module's own code alone."""
    options = {"context_length": animal.context, "gate": "off", "torchscript": False}
    artifact = gpt_export.export(animal.make(), tmp_path / "artifact", **options)
    path = artifact.folder / "onnx" / "model.onnx"
    assert largest_difference(path, animal, animal.make()) <= LARGEST
    assert PlainModel.open(path).cached == animal.cached
    if not animal.cached:
        assert animal.because in " ".join(artifact.manifest.model["notes"]).lower()


@pytest.mark.parametrize("animal", REFUSED, ids=str)
def test_what_is_refused_is_refused_in_a_sentence_that_says_why(animal: Animal, tmp_path: Path) -> None:
    with pytest.raises(gpt_export.GptExportError) as refusal:
        gpt_export.export(animal.target, tmp_path / "artifact")
    sentence = str(refusal.value)
    assert animal.because in sentence.lower()
    assert "unexpected" not in sentence
    assert "report this" not in sentence
    assert not (tmp_path / "artifact").exists()
