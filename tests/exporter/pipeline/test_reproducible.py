"""Same source, same bytes, wherever and however it is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
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
FEWER_INSTRUCTIONS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"}
"""What makes torch compute as on another processor."""
MEASURED = ("digest", "files", "parity")
"""The parts of a manifest that what was measured has its share in."""


def export_elsewhere(output: Path, make: str, cwd: Path, **environment: str) -> dict[str, bytes]:
    """The files of an export in a process with another environment."""
    cwd.mkdir(parents=True)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))  # noqa: PTH109
    subprocess.run([sys.executable, "-c", SCRIPT, str(output), make], cwd=cwd, env=os.environ | environment, check=True)
    return tree(output)


@pytest.mark.parametrize("make", ["tiny_gpt", "Buffers"])
def test_two_exports_under_other_circumstances_are_the_same_model(make: str, tmp_path: Path) -> None:
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
        **FEWER_INSTRUCTIONS,
    )
    manifests = [json.loads(files["manifest.json"]) for files in (first, second)]
    model, other = (found["files"].keys() - set(found["measured"]) for found in manifests)
    assert model == other
    assert {name for name in model if first[name] != second[name]} == set()
    assert "torchscript/model.pt" in model
    assert manifests[0]["model_digest"] == manifests[1]["model_digest"]
    described = [{key: value for key, value in found.items() if key not in MEASURED} for found in manifests]
    assert described[0] == described[1]
    threads = [found["parity"]["measured_on"]["threads"] for found in manifests]
    assert threads == [1, 2]


def test_two_exports_on_one_machine_are_the_same_to_the_byte(tmp_path: Path) -> None:
    first = export_elsewhere(tmp_path / "a", "tiny_gpt", tmp_path / "cwd", PYTHONHASHSEED="1", TZ="UTC")
    second = export_elsewhere(tmp_path / "b" / "c", "tiny_gpt", tmp_path / "d", PYTHONHASHSEED="2", TZ="Asia/Tokyo")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


def test_what_was_measured_is_told_apart_from_the_model(byte_original: Path) -> None:
    manifest = Artifact.open(byte_original).manifest
    assert set(manifest.measured or ()) == {"README.md", "parity.json", "report.html"}
    processor = json.loads((byte_original / "parity.json").read_text("utf-8"))["measured_on"]["processor"]
    for name, data in tree(byte_original).items():
        tells = name in (*(manifest.measured or ()), "manifest.json")
        assert (processor.encode() in data) == tells, name


def test_the_digest_of_the_model_is_what_sha256sum_says_of_its_files(byte_original: Path) -> None:
    body = json.loads((byte_original / "manifest.json").read_text("utf-8"))
    model = sorted(body["files"].keys() - set(body["measured"]))
    sums = subprocess.run(["sha256sum", *model], cwd=byte_original, capture_output=True, check=True).stdout
    assert hashlib.sha256(sums).hexdigest() == body["model_digest"]


def test_the_digest_of_the_model_is_of_all_its_files_and_of_no_other(byte_original: Path) -> None:
    manifest = Artifact.open(byte_original).manifest
    for path, entry in manifest.files.items():
        files = {**manifest.files, path: {**entry, "sha256": "0" * 64}}
        same = dataclasses.replace(manifest, files=files).model_digest == manifest.model_digest
        assert same == (path in (manifest.measured or ())), path


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
