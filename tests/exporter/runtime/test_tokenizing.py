"""A checkpoint's tokenizer on its way into the artifact, and out of it again."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export_models.carried_tokenizer import CarriedTokenizer
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.byte_gpt import END_ID, save_byte_gpt
from tests.conftest import Run


@pytest.fixture
def copy(byte_original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(byte_original, tmp_path / "copy"))


def test_the_files_are_carried_byte_for_byte_and_hashed(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    others = {
        "tokenizer_config.json": '{"model_max_length": 40}\n',
        "special_tokens_map.json": "{}",
        "generation_config.json": '{ "eos_token_id":256 }',
    }
    for name, text in others.items():
        (path.parent / name).write_text(text, encoding="utf-8")
    run = cli("onnx", path, "--config", config_file, "--output", tmp_path / "out")
    assert run.code == 0, run.err
    manifest = Artifact.open(tmp_path / "out").manifest
    for name in (*others, "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (path.parent / name).read_bytes()
        assert name in manifest.files
    assert manifest.model["tokenizer"] == "carried"
    assert not any("ids alone" in note for note in manifest.model["notes"])
    assert "book.json" not in manifest.files
    Artifact.open(tmp_path / "out").verify()


def test_the_gate_runs_text_through_the_carried_tokenizer(byte_original: Path) -> None:
    cases = json.loads((byte_original / "parity.json").read_text("utf-8"))["cases"]["onnx"]
    assert next(case for case in cases if case["name"] == "text")["sequence"] == len("Every effort moves you")


def test_the_artifacts_tokenizer_is_the_carried_one(byte_original: Path) -> None:
    tokenizer = open_tokenizer(byte_original)
    assert isinstance(tokenizer, CarriedTokenizer)
    assert tokenizer.encode("naïve") == list("naïve".encode())
    assert tokenizer.end_of_text_id == END_ID


def test_a_gpt2_vocabulary_has_gpt2s_tokenizer(artifact_124m: Path) -> None:
    assert isinstance(open_tokenizer(artifact_124m), Gpt2Tokenizer)


def test_an_artifact_for_ids_alone_says_so(ids_alone: Path) -> None:
    manifest = Artifact.open(ids_alone).manifest
    note = "there is no tokenizer for this vocabulary of 257; the artifact is for ids alone"
    assert manifest.model["tokenizer"] is None
    assert note in manifest.model["notes"]
    assert note in (manifest.parity or {})["notes"]
    assert open_tokenizer(ids_alone) is None
    cases = json.loads((ids_alone / "parity.json").read_text("utf-8"))["cases"]["onnx"]
    names = {case["name"] for case in cases}
    assert "text" not in names
    assert any(name.startswith("grid-") for name in names)


def test_a_person_is_told_that_it_is_for_ids_alone(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in", tokenizer=False)
    for gate in ("enforce", "off"):
        run = cli("onnx", path, "--config", config_file, "--output", tmp_path / gate, "--gate", gate)
        assert "the artifact is for ids alone" in run.out
        assert f"gpt-export generate {tmp_path / gate} --ids 0" in run.out


def test_texts_for_an_artifact_of_ids_alone_are_refused(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in", tokenizer=False)
    cli("onnx", path, "--config", config_file, "--output", tmp_path / "out", "--text", "hello").refused(
        2, "has a vocabulary of 257 and no tokenizer for it"
    )


def test_an_artifact_validates_against_its_checkpoint_again(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    assert cli("onnx", path, "--config", config_file, "--output", tmp_path / "out").code == 0
    run = cli("validate", tmp_path / "out", "--against", path, "--config", config_file, "--json")
    assert run.code == 0, run.err
    assert run.json()["passed"]


def test_a_pickled_vocabulary_is_never_opened(cli: Callable[..., Run], tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    path, config_file = save_byte_gpt(tmp_path / "in", tokenizer=False)
    (path.parent / "meta.pkl").write_bytes(pickle.dumps(Runs()))
    run = cli("onnx", path, "--config", config_file, "--output", tmp_path / "out")
    assert run.code == 0, run.err
    assert "meta.pkl was ignored: it is a pickle, which could run code" in run.out
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out" / "meta.pkl").exists()


@pytest.mark.parametrize("damage", [b"{}", None])
def test_an_altered_tokenizer_is_not_opened(copy: Path, damage: bytes | None) -> None:
    (copy / "tokenizer.json").unlink()
    if damage:
        (copy / "tokenizer.json").write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"is damaged: tokenizer\.json "):
        open_tokenizer(copy)


def test_a_file_that_the_manifest_does_not_name_changes_nothing(copy: Path) -> None:
    (copy / "special_tokens_map.json").write_text('{"eos_token": "a"}', encoding="utf-8")
    tokenizer = open_tokenizer(copy)
    assert tokenizer is not None
    assert tokenizer.end_of_text_id == END_ID
