"""An artifact on a machine that may not have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError
from gpt_export.scoring import shipping
from gpt_export.scoring.shipping import read_chunk, settle

from tests.conftest import tree


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "CHUNK_BYTES", 10_000)


def test_what_is_not_there_is_fetched_by_hash_once(byte_original: Path, tmp_path: Path) -> None:
    manifest = Artifact.open(byte_original).manifest
    asked = []

    def fetch(path: str, offset: int) -> bytes:
        asked.append((path, offset))
        return read_chunk(byte_original, path, offset)

    found = settle(tmp_path / "elsewhere", manifest, fetch, cache=tmp_path / "cache")
    assert found == tmp_path / "cache" / manifest.to_dict()["digest"]
    assert tree(found) == tree(byte_original)
    assert len(asked) > len(manifest.files)
    before = len(asked)
    assert settle(tmp_path / "elsewhere", manifest, fetch, cache=tmp_path / "cache") == found
    assert len(asked) == before


def test_what_arrives_damaged_is_not_kept(byte_original: Path, tmp_path: Path) -> None:
    manifest = Artifact.open(byte_original).manifest

    def fetch(path: str, offset: int) -> bytes:
        return read_chunk(byte_original, path, offset).replace(b"o", b"0")

    with pytest.raises(ArtifactError, match="is damaged"):
        settle(tmp_path / "elsewhere", manifest, fetch, cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_folder_is_verified_once_and_again_when_a_file_changed(
    byte_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(byte_original, tmp_path / "copy"))
    manifest = Artifact.open(folder).manifest
    times = []
    verify = Artifact.verify
    monkeypatch.setattr(Artifact, "verify", lambda self: times.append(1) or verify(self))
    for _ in range(3):
        assert settle(folder, manifest, None, cache=tmp_path / "cache") == folder
    assert len(times) == 1
    (path,) = folder.rglob("*.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="is damaged"):
        settle(folder, manifest, None, cache=tmp_path / "cache")


def test_another_artifact_at_that_place_is_not_taken(byte_original: Path, ids_alone: Path, tmp_path: Path) -> None:
    manifest = Artifact.open(byte_original).manifest
    with pytest.raises(ArtifactError, match="not the artifact any more"):
        settle(ids_alone, manifest, None, cache=tmp_path / "cache")
