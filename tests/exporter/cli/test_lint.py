"""The lint command: exit codes, and what is on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.exporter.linting.faults import FAULTS
from tests.exporter.linting.graphs import good, save

Cli = Callable[..., Run]


def test_a_good_file_has_no_findings(cli: Cli, tmp_path: Path) -> None:
    run = cli("lint", save(good(), tmp_path))
    assert run.code == 0
    assert "no findings" in run.out
    assert run.err == ""


def test_an_error_exits_1_and_a_warning_0(cli: Cli, tmp_path: Path) -> None:
    assert cli("lint", FAULTS["GX102"][0](tmp_path / "a")).code == 1
    assert cli("lint", FAULTS["GX501"][0](tmp_path / "b")).code == 0


def test_an_artifact_is_linted_by_variant(cli: Cli, tiny: Path) -> None:
    run = cli("lint", tiny, "--target-ort", "1.17", "--json")
    assert run.code == 0
    (file,) = run.json()["files"]
    assert file["path"].endswith("onnx/model.onnx")
    assert file["minimum_onnxruntime"] == "1.14"
    assert run.json()["counts"]["error"] == 0


def test_json_has_every_finding(cli: Cli, tmp_path: Path) -> None:
    run = cli("lint", FAULTS["GX101"][0](tmp_path), "--json")
    assert run.code == 1
    first = run.json()["files"][0]["findings"][0]
    assert first["code"] == "GX101"
    assert first["severity"] == "error"
    assert first["location"] == {"kind": "tensor", "name": "input_ids"}
    assert first["remedy"]


def test_sarif_to_a_file_beside_the_table(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "lint.sarif"
    run = cli("lint", FAULTS["GX101"][0](tmp_path), "--sarif", target)
    assert run.code == 1
    assert "GX101" in run.out
    assert json.loads(target.read_text("utf-8"))["runs"][0]["results"][0]["ruleId"] == "GX101"


def test_sarif_alone_on_stdout(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cli("lint", FAULTS["GX101"][0](tmp_path), "--sarif", "-")
    location = run.json()["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "onnx/model.onnx"


def test_a_consumer_can_be_chosen(cli: Cli, tmp_path: Path) -> None:
    path = FAULTS["GX406"][0](tmp_path)
    assert cli("lint", path).code == 0
    assert cli("lint", path, "--consumer", "optimum").code == 0
    run = cli("lint", path, "--consumer", "triton", "--consumer", "onnxruntime-genai")
    assert run.code == 1
    assert "GX426" in run.out


def test_a_rule_can_be_ignored(cli: Cli, tmp_path: Path) -> None:
    path = FAULTS["GX101"][0](tmp_path)
    assert cli("lint", path, "--ignore", "GX101").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ignore", "GX999"), ("GX999", "GX101")),
        (("--target-ort", "0.1"), ("0.1", "1.10")),
        (("--consumer", "tensorrt"), ("tensorrt", "triton")),
    ],
)
def test_wrong_usage_exits_2(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    cli("lint", save(good(), tmp_path), *arguments).refused(2, *words)


def test_wrong_usage_with_json_is_said_in_json_alone(cli: Cli, tmp_path: Path) -> None:
    run = cli("lint", save(good(), tmp_path), "--json", "--sarif", "-")
    assert (run.code, run.err) == (2, "")
    message = json.loads(run.out)["error"]["message"]
    assert "--json" in message
    assert "--sarif" in message


def test_what_is_no_model_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    cli("lint", path).refused(1, "does not exist")
    path.write_bytes(good().SerializeToString()[:700])
    cli("lint", path).refused(1, "not an ONNX model", "cut short")


def test_a_sarif_file_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path) -> None:
    cli("lint", save(good(), tmp_path), "--sarif", tmp_path).refused(1, "cannot be written")


def test_the_installed_command_lints(run_command: Cli, tmp_path: Path) -> None:
    run = run_command("lint", FAULTS["GX101"][0](tmp_path), cwd=tmp_path)
    assert run.code == 1
    assert "GX101" in run.out
    assert max(len(line.rstrip()) for line in run.out.splitlines()[1:]) <= 120
