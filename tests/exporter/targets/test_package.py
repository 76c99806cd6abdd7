"""Packages are all there or not at all, and byte for byte the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import click
import onnxruntime
import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.cli.package import package as command
from gpt_export.errors import OutputError
from gpt_export.runtime.session import Session
from gpt_export.targets import archive
from gpt_export.targets import package as packaging
from gpt_export.targets.package import package

from tests.conftest import Run, tree
from tests.exporter.targets.manifests import facts


@pytest.fixture
def artifact(byte_original: Path, tmp_path: Path) -> Path:
    """An artifact that the test may damage."""
    return Path(shutil.copytree(byte_original, tmp_path / "artifact"))


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_two_tars_are_the_same_bytes_whatever_the_clock_and_the_modes(artifact: Path, tmp_path: Path) -> None:
    first = package(artifact, "archive", tmp_path / "a.tar")
    for path in artifact.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    umask = os.umask(0o077)
    try:
        second = package(artifact, "archive", tmp_path / "b.tar")
    finally:
        os.umask(umask)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()


def test_an_unpacked_tar_is_the_artifact(artifact: Path, tmp_path: Path) -> None:
    package(artifact, "archive", tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    found = tree(root)
    sums = found.pop("SHA256SUMS").decode()
    assert found == tree(artifact)
    assert sums == "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(found.items()))
    Artifact.open(root).verify()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mode, m.mtime) for m in members} == {
        (0, 0, "", "", 0o644, archive.MTIME)
    }


def test_sha256sum_agrees(artifact: Path, tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed: it comes with coreutils")
    package(artifact, "archive", tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "model", check=True)


@pytest.mark.parametrize("target", packaging.PACKAGES)
@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_artifact_is_not_packaged(
    target: str, damage: str, artifact: Path, tmp_path: Path, cli: Callable[..., Run]
) -> None:
    graph = artifact / "onnx" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.unlink()
    if damage != "missing":
        graph.write_bytes(data if damage == "altered" else data[:-1])
    run = cli("package", artifact, "--target", target, "--output", tmp_path / "out")
    run.refused(1, "is damaged", "onnx/model.onnx")
    assert not (tmp_path / "out").exists()
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("target", packaging.PACKAGES)
def test_a_full_disk_leaves_nothing(
    target: str, artifact: Path, tmp_path: Path, cli: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt_export.targets.package._Hashed.read", full)
    cli("package", artifact, "--target", target, "--output", tmp_path / "out").refused(1, "No space left on device")
    assert not (tmp_path / "out").exists()
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("target", packaging.PACKAGES)
def test_a_disk_without_room_is_refused_first(
    target: str, artifact: Path, tmp_path: Path, cli: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_export.artifact.staging.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    cli("package", artifact, "--target", target, "--output", tmp_path / "out").refused(1, "MB free", "free space")
    assert left_over(tmp_path) == []


SLOW = """
import sys, time
from gpt_export.targets import package
def slow(self, size=-1):
    print("reading", flush=True)
    time.sleep(60)
package._Hashed.read = slow
from gpt_export.cli import main
sys.argv = ["gpt-export", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("target", packaging.PACKAGES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_publishes_nothing(target: str, number: int, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "it"
    args = ["package", str(artifact), "--target", target, "--output", str(output)]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"reading\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert [path for path in tree(tmp_path / "out") if ".staging-" not in path] == []
    package(artifact, target, output)  # and the next run clears what a killed one left
    assert not any(".staging-" in path for path in tree(tmp_path / "out"))


@pytest.mark.parametrize("target", packaging.PACKAGES)
def test_what_is_there_is_not_replaced(target: str, artifact: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    first = cli("package", artifact, "--target", target, "--output", tmp_path / "out")
    assert first.code == 0, first.err
    before = tree(tmp_path)
    cli("package", artifact, "--target", target, "--output", tmp_path / "out").refused(
        1, "exists; choose another --output, or remove it yourself"
    )
    assert tree(tmp_path) == before


def test_a_tar_that_appears_meanwhile_is_not_replaced(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = tmp_path / "a.tar", archive.write_tar

    def writes(*args: object) -> str:
        output.write_text("theirs")
        return write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("gpt_export.targets.archive.write_tar", writes)
    with pytest.raises(OutputError, match="exists"):
        package(artifact, "archive", output)
    assert output.read_text() == "theirs"


def test_a_tar_is_written_where_files_cannot_be_linked(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    package(artifact, "archive", tmp_path / "a.tar")
    assert tarfile.is_tarfile(tmp_path / "a.tar")


def test_a_repository_takes_further_models(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "repository" / "other").mkdir(parents=True)
    made = package(artifact, "triton", tmp_path / "repository")
    assert made.path == tmp_path / "repository" / "model"
    assert (tmp_path / "repository" / "other").is_dir()
    onnxruntime.InferenceSession(made.path / "1" / "model.onnx")


def test_a_genai_folder_is_opened_by_its_own_names(artifact: Path, tmp_path: Path) -> None:
    made = package(artifact, "genai", tmp_path / "genai")
    assert (made.path / "onnx" / "model.onnx").read_bytes() == (artifact / "onnx" / "model.onnx").read_bytes()
    assert set(tree(made.path)) == set(made.files)


def test_a_variant_that_is_not_there_is_refused(artifact: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    flags = ("--variant", "int4", "--output", tmp_path / "out")
    cli("package", artifact, "--target", "triton", *flags).refused(1, "has no variant 'int4'", "it has fp32")
    cli("package", artifact, "--target", "archive", *flags).refused(2, "an archive holds every variant")


def test_the_skeleton_is_nothing_for_genai(artifact_124m: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    run = cli("package", artifact_124m, "--target", "genai", "--output", tmp_path / "out")
    run.refused(1, "needs a decoder with a cache")


def test_the_command_knows_every_target() -> None:
    (option,) = [option for option in command.params if option.name == "target"]
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(packaging.PACKAGES)


def test_the_result_is_told_as_json(artifact: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    found = cli("package", artifact, "--target", "archive", "--output", tmp_path / "a.tar", "--json").json()
    assert found["package"] == str(tmp_path / "a.tar")
    assert "SHA256SUMS" in found["files"]
    assert found["sha256"] == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["../../up", "..", "/etc", "a/b", "", "name with spaces", ".hidden", "CON\n"])
def test_no_name_leads_out_of_the_repository(name: str) -> None:
    found = facts(name=name).folder_name
    assert found
    assert not set("/\\ \n") & set(found)
    assert not found.startswith(".")


def test_large_files_are_streamed(byte_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = packaging._Hashed.read

    def noted(self: packaging._Hashed, size: int = -1) -> bytes:
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr("gpt_export.targets.package._Hashed.read", noted)
    for target in packaging.PACKAGES:
        package(byte_original, target, tmp_path / target)
    assert set(asked) == {archive.CHUNK_BYTES}


def test_a_packaged_archive_runs(artifact: Path, tmp_path: Path) -> None:
    package(artifact, "archive", tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    assert Session.open(tmp_path / "model").logits([[0]]).shape == (1, 1, 257)
