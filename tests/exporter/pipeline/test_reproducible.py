"""Same source, same bytes, wherever and however it is written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpt_export.artifact.reading import Artifact

from tests import samples
from tests.conftest import tree

SCRIPT = textwrap.dedent(
    """
    import sys, torch, gpt_export
    from tests import samples
    make = getattr(samples, sys.argv[2])
    gpt_export.export(samples.seeded(make()), sys.argv[1], context_length=samples.CONTEXT, vocab_size=samples.VOCAB)
    """
)


def export_elsewhere(output: Path, make: str, cwd: Path, **environment: str) -> dict[str, bytes]:
    """The files of an export in a process with another environment."""
    cwd.mkdir(parents=True)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))  # noqa: PTH109
    subprocess.run([sys.executable, "-c", SCRIPT, str(output), make], cwd=cwd, env=os.environ | environment, check=True)
    return tree(output)


@pytest.mark.parametrize("make", ["tiny_gpt", "Buffers"])
def test_two_exports_under_other_circumstances_are_identical(make: str, tmp_path: Path) -> None:
    first = export_elsewhere(
        tmp_path / "a", make, tmp_path / "cwd", PYTHONHASHSEED="1", TZ="UTC", LC_ALL="C", OMP_NUM_THREADS="1"
    )
    second = export_elsewhere(
        tmp_path / "deeper" / "other-name",
        make,
        tmp_path / "elsewhere" / "cwd",
        PYTHONHASHSEED="2",
        TZ="Asia/Tokyo",
        LC_ALL="C.UTF-8",
        OMP_NUM_THREADS="2",
        HOSTNAME="other",
    )
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()
    assert "torchscript/model.pt" in first


def test_nothing_of_the_machine_is_inside(tiny: Path) -> None:
    marks = [str(Path.home()), str(Path(samples.__file__).parent), str(tiny.parent), "/tmp/", "site-packages"]
    for name, data in tree(tiny).items():
        for mark in marks:
            assert mark.encode() not in data, (name, mark)


def test_torchs_own_file_differs_from_run_to_run(tmp_path: Path) -> None:
    # The control: without the canonical rewriting the promise above would not hold.
    scripted = torch.jit.script(samples.tiny_dummy())
    for name in ("a.pt", "b.pt"):
        torch.jit.save(scripted, str(tmp_path / name))
    assert (tmp_path / "a.pt").read_bytes() != (tmp_path / "b.pt").read_bytes()


def test_the_canonical_file_still_loads_in_torch_and_agrees(tiny: Path) -> None:
    loaded = torch.jit.load(str(tiny / "torchscript" / "model.pt"))
    ids = torch.from_numpy(samples.random_ids(3, 7))
    assert torch.equal(loaded(ids), samples.tiny_dummy()(ids))
    assert not loaded.training
    assert [p.name for p in tiny.glob("torchscript/*")] == ["model.pt"]


def test_the_torchscript_zip_has_fixed_dates_and_aligned_data(tiny: Path) -> None:
    with zipfile.ZipFile(tiny / "torchscript" / "model.pt") as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.filename.split("/")[0] for entry in entries} == {"model"}
    data = (tiny / "torchscript" / "model.pt").read_bytes()
    for entry in entries:
        name, extra = (int.from_bytes(data[entry.header_offset + at :][:2], "little") for at in (26, 28))
        assert (entry.header_offset + 30 + name + extra) % 64 == 0


def test_another_opset_gives_another_file(export_tiny: Callable[..., Artifact], tmp_path: Path) -> None:
    files = [tree(export_tiny(samples.tiny_dummy(), tmp_path / str(n), opset=n).folder) for n in (17, 18)]
    assert files[0]["onnx/model.onnx"] != files[1]["onnx/model.onnx"]
    assert files[0]["torchscript/model.pt"] == files[1]["torchscript/model.pt"]


def test_the_124m_main_job_gives_the_same_bytes_again(
    artifact_124m: Path, run_command: Callable, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    run = run_command("onnx", "--output", again, cwd=tmp_path, env={"PYTHONHASHSEED": "3", "TZ": "America/Lima"})
    assert run.code == 0, run.err
    first, second = sorted(artifact_124m.rglob("*")), sorted(again.rglob("*"))
    assert [p.relative_to(artifact_124m) for p in first] == [p.relative_to(again) for p in second]
    for a, b in zip(first, second, strict=True):
        assert a.is_dir() or a.read_bytes() == b.read_bytes(), a.name
