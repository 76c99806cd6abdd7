"""What a module may be: whatever it returns and however it is wrapped, the graph says what its own code says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import InputError, SourceError
from gpt_export.runtime.session import Session
from gpt_export.runtime.signature import Head
from gpt_export.sources.adapted import adapt
from torch import nn

from tests import samples
from tests.exporter.sources import modules
from tests.tolerances import LIMITS

IDS = samples.random_ids(2, 7)


def off_by(found: np.ndarray, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the root mean square of what is wanted."""
    assert found.shape == tuple(wanted.shape)
    expected = wanted.detach().double().numpy()
    return float(np.abs(found - expected).max() / np.sqrt(np.square(expected).mean()))


def said_by(module: nn.Module) -> torch.Tensor:
    """The logits as the module's own code has them."""
    with torch.no_grad():
        return module.logits(torch.from_numpy(IDS))


@pytest.mark.parametrize("road", ["script", "export"])
@pytest.mark.parametrize("make", [modules.WithLoss, modules.HiddenFirst, modules.InDict, modules.Flat, modules.OneHot])
def test_logits_are_found_among_outputs_on_either_road(
    make: type[modules.Mixed], road: str, export_tiny: Callable[..., Artifact]
) -> None:
    module = samples.seeded(make()).eval()
    wanted = said_by(module)
    if make is modules.OneHot:
        wanted = module(torch.from_numpy(IDS))
    artifact = export_tiny(module, road=road)
    assert artifact.manifest.source["road"] == road
    assert artifact.manifest.model["head"] == {"of": "tokens", "positions": "all", "width": samples.VOCAB}
    assert off_by(Session.open(artifact.folder).logits(IDS), wanted) <= LIMITS["fp32"]
    names = {
        source for weight in artifact.manifest.variants["fp32"]["weights"].values() for source in weight["sources"]
    }
    assert names <= set(dict(module.named_parameters()))


@pytest.mark.parametrize("make", [modules.InDataclass, modules.InList])
def test_outputs_that_do_not_script_go_by_export(
    make: type[modules.Mixed], export_tiny: Callable[..., Artifact]
) -> None:
    module = samples.seeded(make()).eval()
    artifact = export_tiny(module)
    assert artifact.manifest.source["road"] == "export"
    assert not (artifact.folder / "torchscript").exists()
    notes = " ".join(artifact.manifest.model["notes"])
    assert "there is no torchscript/model.pt" in notes
    assert "the graph was made by torch.export, because" in notes
    assert off_by(Session.open(artifact.folder).logits(IDS), said_by(module)) <= LIMITS["fp32"]


@pytest.mark.parametrize("make", [modules.LastKept, modules.LastAlone])
def test_logits_of_the_last_position_are_exported_as_that(
    make: type[modules.Mixed], export_tiny: Callable[..., Artifact]
) -> None:
    module = samples.seeded(make()).eval()
    artifact = export_tiny(module)
    assert artifact.manifest.model["head"]["positions"] == "last"
    session = Session.open(artifact.folder)
    assert off_by(session.logits(IDS), said_by(module)[:, -1:]) <= LIMITS["fp32"]
    with torch.no_grad():
        wanted = [int(module.logits(torch.from_numpy(IDS[:1]))[0, -1].argmax())]
    assert [int(new[0]) for new in session.generate(IDS[:1], max_new_tokens=1)] == wanted
    assert artifact.manifest.parity["targets"]["onnx"]["positions"] > 200  # prefix by prefix


def test_a_last_position_that_is_another_ones_is_caught(export_tiny: Callable[..., Artifact]) -> None:
    """The negative control of the comparison by prefixes."""
    module = samples.seeded(modules.LastKept()).eval()
    artifact = export_tiny(module)
    other = samples.seeded(modules.LastKept(), spread=0.4).eval()
    import gpt_export

    report = gpt_export.validate(artifact, other)
    assert not report.passed
    assert any("grid-1x17" in failure for failure in report.failures)


@pytest.mark.parametrize(
    ("make", "positions", "shape"),
    [(modules.Tagger, "all", (2, 7, modules.CLASSES)), (modules.Classifier, "none", (2, modules.CLASSES))],
)
def test_classes_are_exported_and_are_no_tokens(
    make: type[modules.Tagger], positions: str, shape: tuple[int, ...], export_tiny: Callable[..., Artifact]
) -> None:
    module = samples.seeded(make()).eval()
    artifact = export_tiny(module)
    assert artifact.manifest.model["head"] == {"of": "classes", "positions": positions, "width": modules.CLASSES}
    assert artifact.manifest.variants["fp32"]["outputs"][0]["name"] == "classes"
    session = Session.open(artifact.folder)
    assert session.logits(IDS).shape == shape
    with torch.no_grad():
        assert off_by(session.logits(IDS), module(torch.from_numpy(IDS))) <= LIMITS["fp32"]
    with pytest.raises(InputError, match="scores 3 classes and no next token"):
        session.generate(IDS, max_new_tokens=1)
    with pytest.raises(InputError, match="ids run from 0 to 28"):
        session.logits([[29]])


def wrapped_inside() -> nn.Module:
    module = modules.Plain()
    module.head = torch.compile(module.head)
    return module


def weight_normed(normed: Callable[..., object]) -> nn.Module:
    module = modules.Plain()
    normed(module.head)
    return module


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.compile(modules.Plain()),
        lambda: nn.DataParallel(modules.Plain()),
        wrapped_inside,
        lambda: weight_normed(nn.utils.parametrizations.weight_norm),
        lambda: weight_normed(nn.utils.weight_norm),
    ],
    ids=["compiled", "parallel", "compiled inside", "parametrized", "weight_norm"],
)
def test_wrappings_are_looked_through(make: Callable[[], nn.Module]) -> None:
    module = make().eval()
    adapted = adapt(module)
    assert set(adapted.weights) == {"emb.weight", "head.weight", "head.bias"}
    inner = getattr(module, "_orig_mod", getattr(module, "module", module))
    with torch.no_grad():
        wanted = inner.logits(torch.from_numpy(IDS))
        assert torch.equal(adapted.reference()(torch.from_numpy(IDS)), wanted)
    assert adapted.head == Head(width=samples.VOCAB)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_narrow_modules_are_exported_in_float32(kind: torch.dtype, export_tiny: Callable[..., Artifact]) -> None:
    module = samples.seeded(modules.Plain()).to(kind).eval()
    artifact = export_tiny(module)
    assert any("widened to float32" in note for note in artifact.manifest.model["notes"])
    wide = samples.seeded(modules.Plain()).to(kind).float().eval()
    assert off_by(Session.open(artifact.folder).logits(IDS), said_by(wide)) <= LIMITS["fp32"]
    assert module.emb.weight.dtype == kind  # what was given is left as it was


def test_the_range_of_ids_is_that_of_the_table() -> None:
    module = samples.seeded(modules.Plain()).eval()
    module.emb = nn.Embedding(64, 8)
    adapted = adapt(module)
    assert (adapted.rows, adapted.head.width) == (64, samples.VOCAB)
    assert adapted.head.of == "classes"  # less than half as many scores as ids


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: modules.NoScores(), ["NoScores returns int64 [2, 3]", "no scores of tokens or classes"]),
        (lambda: modules.Doubled(), ["computes in float64", "call .float() on it"]),
        (lambda: nn.Linear(3, 3), ["Linear fails on token ids", "one int64 tensor"]),
        (lambda: "text", ["'text' is a str, not a torch.nn.Module"]),
    ],
)
def test_what_is_no_decoder_is_refused_in_one_sentence(module: Callable[[], nn.Module], words: list[str]) -> None:
    with pytest.raises(SourceError) as refused:
        adapt(module())
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantised_modules_end_with_the_way_out() -> None:
    module = torch.ao.quantization.quantize_dynamic(modules.Plain().eval(), {nn.Linear})
    with pytest.raises(SourceError, match=r"quantised already .*--precision int8,int4"):
        adapt(module)


def test_a_module_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        module = modules.Plain()
    with pytest.raises(SourceError, match="meta device, which hold no numbers"):
        adapt(module)
