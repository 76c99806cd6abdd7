"""What an artifact holds for consumers, and that it is an artifact like before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export.targets import READERS, consumer_files
from gpt_export.targets.facts import Facts
from gpt_export_models.carried_tokenizer import CarriedTokenizer

from tests.byte_gpt import END_ID, save_byte_gpt
from tests.conftest import Run, tree
from tests.exporter.targets.manifests import facts, manifest

HUGGING_FACE = {"config.json", "tokenizer.json", "tokenizer_config.json"}
ALL = HUGGING_FACE | {"generation_config.json", "genai_config.json", "README.md"}
GPT2S = {"vocab.json", "merges.txt", "LICENSE-gpt2.txt"}


def names(artifact: Path) -> set[str]:
    return {path for path in Artifact.open(artifact).manifest.files if "/" not in path} - {"parity.json", "report.html"}


def test_a_cached_gpt_has_every_consumers_files(byte_original: Path) -> None:
    assert names(byte_original) == ALL


def test_gpt2s_vocabulary_comes_with_all_its_files_and_their_licence() -> None:
    made = consumer_files(Path("nowhere"), manifest("fp32"))
    assert made.keys() | {"README.md"} == ALL | GPT2S


def test_ids_alone_have_no_tokenizer_and_no_text_ends(ids_alone: Path) -> None:
    assert names(ids_alone) == {"config.json", "genai_config.json", "README.md"}
    config = json.loads((ids_alone / "config.json").read_text("utf-8"))
    assert config["eos_token_id"] is None
    assert config["bos_token_id"] is None


def test_without_a_cache_there_is_nothing_that_generates(byte_uncached: Path) -> None:
    assert names(byte_uncached) == HUGGING_FACE | {"README.md"}
    assert json.loads((byte_uncached / "config.json").read_text("utf-8"))["use_cache"] is False


def test_the_skeleton_and_modules_have_a_card_alone(artifact_124m: Path, tiny: Path) -> None:
    # Both are GPT-2's vocabulary or none, but no consumer knows their architecture.
    assert names(artifact_124m) == {"README.md"}
    assert names(tiny) == {"README.md"}


def test_every_file_is_hashed_and_inspected(byte_original: Path, cli: Callable[..., Run]) -> None:
    Artifact.open(byte_original).verify()
    run = cli("inspect", byte_original, "--json")
    assert run.json()["files"].keys() >= ALL


def test_the_artifact_lints_and_validates_as_before(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    assert cli("onnx", path, "--config", config_file, "--output", tmp_path / "out").code == 0
    assert cli("lint", tmp_path / "out").code == 0
    run = cli("validate", tmp_path / "out", "--against", path, "--config", config_file)
    assert run.code == 0, run.err


def test_what_the_checkpoint_carries_stays(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    kept = {
        "tokenizer_config.json": '{"model_max_length": 40}',
        "generation_config.json": '{"eos_token_id": [256, 10]}',
    }
    for name, text in kept.items():
        (path.parent / name).write_text(text, encoding="utf-8")
    assert cli("onnx", path, "--config", config_file, "--output", tmp_path / "out").code == 0
    for name, text in kept.items():
        assert (tmp_path / "out" / name).read_text("utf-8") == text
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["eos_token_id"] == 256
    genai = json.loads((tmp_path / "out" / "genai_config.json").read_text("utf-8"))
    assert genai["model"]["eos_token_id"] == [256, 10]


def test_vocabulary_and_merges_alone_become_a_whole_tokenizer(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    model = json.loads((path.parent / "tokenizer.json").read_text("utf-8"))["model"]
    (path.parent / "tokenizer.json").unlink()
    vocabulary = model["vocab"] | {"<|endoftext|>": END_ID}
    (path.parent / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (path.parent / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    assert cli("onnx", path, "--config", config_file, "--output", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text("utf-8"))["model"]["merges"] == []
    tokenizer = open_tokenizer(tmp_path / "out")
    assert isinstance(tokenizer, CarriedTokenizer)
    assert tokenizer.encode("naïve") == list("naïve".encode())
    assert tokenizer.end_of_text_id == END_ID


def test_the_files_are_the_same_for_the_same_artifact(byte_original: Path) -> None:
    found = Artifact.open(byte_original).manifest
    written = {name: entry for name, entry in found.files.items() if name in ("tokenizer.json",) or "/" in name}
    before = type(found)(**{field: getattr(found, field) for field in found.__slots__} | {"files": written})
    made = consumer_files(byte_original, before) | consumer_files(byte_original, before, READERS)
    assert "README.md" in made
    assert made.items() <= tree(byte_original).items()


def test_two_targets_of_one_file_are_a_fault() -> None:
    def target(_: Facts) -> dict[str, bytes]:
        return {"config.json": b""}

    with pytest.raises(ValueError, match=r"b would write config\.json, which the target a has written"):
        consumer_files(Path("nowhere"), manifest("fp32"), {"a": target, "b": target})


@pytest.mark.parametrize("record", [{"kind": "seeded", "name": "dummy-124m"}, {"kind": "import"}, {"kind": "module"}])
def test_other_architectures_have_no_configuration(record: dict[str, str]) -> None:
    assert facts(source=record).config is None
