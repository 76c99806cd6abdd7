"""Damaged artifacts: each ends in one sentence that says what, and exit code 1."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError
from gpt_export.runtime.session import Session

from tests import samples
from tests.conftest import Run


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], *, sign: bool) -> None:
    """Changes the manifest; `sign` gives it a fitting digest, as someone would who knows how."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    change(body)
    if sign:
        body.pop("digest", None)
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        body["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(body))


def drop_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refusal(folder: Path) -> str:
    """What verifying and opening say; both must refuse for the same reason."""
    sentences = []
    for use in (lambda: Artifact.open(folder).verify(), lambda: Session.open(folder)):
        with pytest.raises(ArtifactError) as caught:
            use()
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert "\n" not in sentences[0]
    assert caught.value.exit_code == 1
    return sentences[0]


def test_an_untouched_artifact_verifies(tiny: Path) -> None:
    Artifact.open(tiny).verify()


def test_every_file_is_in_the_manifest_with_its_hash_and_size(tiny: Path) -> None:
    files = json.loads((tiny / "manifest.json").read_text())["files"]
    found = {str(p.relative_to(tiny)) for p in tiny.rglob("*") if p.is_file()} - {"manifest.json"}
    assert files.keys() == found
    for name, entry in files.items():
        data = (tiny / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


@pytest.mark.parametrize("name", ["onnx/model.onnx", "torchscript/model.pt", "parity.json"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_last_byte, ["has ", " bytes, not "]),
        (flip_a_bit, ["was altered"]),
        (Path.unlink, ["is missing"]),
    ],
    ids=["truncated", "edited", "missing"],
)
def test_a_damaged_file_is_named(tiny: Path, name: str, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(tiny / name)
    message = refusal(tiny)
    assert f"{tiny} is damaged: {name} " in message
    for word in words:
        assert word in message


def test_all_damaged_files_are_named_at_once(tiny: Path) -> None:
    (tiny / "parity.json").unlink()
    flip_a_bit(tiny / "torchscript" / "model.pt")
    assert "parity.json is missing; torchscript/model.pt was altered" in refusal(tiny)


def test_a_file_that_became_a_folder_is_named(tiny: Path) -> None:
    (tiny / "parity.json").unlink()
    (tiny / "parity.json").mkdir()
    assert "parity.json" in refusal(tiny)


def test_an_edited_manifest_is_refused(tiny: Path) -> None:
    rewrite(tiny, lambda body: body["model"].update(context_length=4096), sign=False)
    assert "manifest.json was edited: its digest does not fit; export the artifact again" in refusal(tiny)


def test_a_digest_of_the_model_that_is_not_its_files_is_refused(tiny: Path) -> None:
    rewrite(tiny, lambda body: body.update(model_digest="0" * 64), sign=True)
    assert "manifest.json was edited: its model_digest does not fit; export the artifact again" in refusal(tiny)


def test_a_model_file_cannot_pass_for_a_measurement(tiny: Path) -> None:
    rewrite(tiny, lambda body: body["measured"].append("onnx/model.onnx"), sign=True)
    assert "its model_digest does not fit" in refusal(tiny)


def test_an_artifact_from_before_the_digest_of_the_model_still_opens(tiny: Path, cli: Callable[..., Run]) -> None:
    def age(body: dict[str, Any]) -> None:
        del body["measured"], body["model_digest"], body["parity"]["measured_on"]

    rewrite(tiny, age, sign=True)
    artifact = Artifact.open(tiny)
    artifact.verify()
    assert artifact.manifest.model_digest is None
    assert artifact.manifest.to_dict() == json.loads((tiny / "manifest.json").read_text())
    assert cli("inspect", tiny, "--json").json()["model_digest"] is None
    assert "model digest" not in cli("inspect", tiny).out


def test_inspect_tells_the_digest_of_the_model(tiny: Path, cli: Callable[..., Run]) -> None:
    digest = json.loads((tiny / "manifest.json").read_text())["model_digest"]
    assert cli("inspect", tiny, "--json").json()["model_digest"] == digest
    assert f"model digest {digest}" in cli("inspect", tiny).out


@pytest.mark.parametrize("text", ["", "{", "not json", '{"format": "gpt-export"'])
def test_a_manifest_that_is_not_json_is_refused(tiny: Path, text: str) -> None:
    (tiny / "manifest.json").write_text(text)
    assert "manifest.json is not JSON" in refusal(tiny)


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"format": "other"}'])
def test_json_that_is_no_manifest_is_refused(tiny: Path, text: str) -> None:
    (tiny / "manifest.json").write_text(text)
    assert "manifest.json is not a manifest of gpt-export" in refusal(tiny)


def test_a_manifest_that_is_not_text_is_refused(tiny: Path) -> None:
    (tiny / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "manifest.json cannot be read" in refusal(tiny)


@pytest.mark.parametrize("version", [2, 99, "1", None])
def test_a_newer_format_is_refused_with_both_versions(tiny: Path, version: object) -> None:
    rewrite(tiny, lambda body: body.update(format_version=version), sign=True)
    message = refusal(tiny)
    assert f"format version {version!r}, this gpt-export reads 1; install the gpt-export that wrote it" in message


@pytest.mark.parametrize("field", ["files", "model", "libraries"])
def test_a_manifest_that_lacks_a_field_is_refused(tiny: Path, field: str) -> None:
    rewrite(tiny, lambda body: body.pop(field), sign=True)
    assert "lacks or adds fields" in refusal(tiny)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "onnx/../../secret", "", "a\\..\\b"])
def test_a_file_outside_the_folder_is_never_followed(tiny: Path, path: str) -> None:
    (tiny.parent / "secret").write_text("secret")
    rewrite(tiny, lambda body: body["files"].update({path: {"sha256": "0" * 64, "size_bytes": 6}}), sign=True)
    assert f"names {path!r}, which lies outside the artifact; do not use this artifact" in refusal(tiny)


@pytest.mark.parametrize("path", ["../tiny/onnx/model.onnx", "/etc/passwd"])
def test_a_variant_outside_the_folder_is_never_followed(tiny: Path, path: str) -> None:
    rewrite(tiny, lambda body: body["variants"]["fp32"].update(path=path), sign=True)
    with pytest.raises(ArtifactError, match="outside the artifact"):
        Session.open(tiny)


def test_a_variant_that_is_no_listed_file_is_never_loaded(tiny: Path) -> None:
    (tiny / "onnx" / "other.onnx").write_bytes((tiny / "onnx" / "model.onnx").read_bytes())
    rewrite(tiny, lambda body: body["variants"]["fp32"].update(path="onnx/other.onnx"), sign=True)
    with pytest.raises(ArtifactError, match=r"onnx/other\.onnx"):
        Session.open(tiny)


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a file"])
def test_what_is_no_artifact_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "an empty folder":
        path.mkdir()
    if what == "a file":
        path.write_text("x")
    with pytest.raises(ArtifactError, match=str(path)):
        Session.open(path)


def test_the_command_line_tells_a_damage_in_one_sentence_and_exits_1(tiny: Path, cli: Callable[..., Run]) -> None:
    flip_a_bit(tiny / "onnx" / "model.onnx")
    cli("validate", tiny, "--against", "dummy-124m").refused(1, "onnx/model.onnx was altered", "export it again")


def test_the_manifest_records_what_was_promised(artifact_124m: Path) -> None:
    manifest = json.loads((artifact_124m / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["source"] == {"kind": "seeded", "name": "dummy-124m", "road": "script", "seed": 123}
    assert manifest["export"]["seed"] == 123
    variant = manifest["variants"]["fp32"]
    assert variant["opset"] == 18
    assert variant["ir_version"] == 8
    assert variant["minimum_onnxruntime"] == "1.17"
    assert variant["inputs"] == [{"name": "input_ids", "dtype": "int64", "dims": ["batch_size", "sequence_length"]}]
    assert variant["outputs"] == [
        {"name": "logits", "dtype": "float32", "dims": ["batch_size", "sequence_length", 50257]}
    ]
    assert {"torch", "onnx", "onnx-ir", "onnxruntime", "numpy", "python", "gpt-export"} <= manifest["libraries"].keys()
    assert manifest["model"]["vocab_size"] == 50257
    assert manifest["model"]["context_length"] == 1024
    assert manifest["parity"]["passed"] is True
    assert manifest["parity"]["weights"]["checked"] == 3


def test_the_124m_file_is_within_a_percent_of_its_weights(artifact_124m: Path) -> None:
    weights = 4 * 768 * (50257 + 1024 + 50257)
    size = sum(path.stat().st_size for path in (artifact_124m / "onnx").iterdir())
    assert weights <= size <= 1.01 * weights


def test_json_files_are_sorted_and_end_in_a_newline(tiny: Path) -> None:
    for name in ("manifest.json", "parity.json"):
        text = (tiny / name).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_name_beyond_ascii_survives(export_tiny: Callable[..., Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "größe ü 模型"
    export_tiny(samples.tiny_dummy(), folder, name="größe 模型")
    assert Artifact.open(folder).manifest.name == "größe 模型"
    Session.open(folder)
