from __future__ import annotations

from pathlib import Path

from benches.record import read_record
from benches.versions.plan import PACKAGES, plan
from benches.versions_doc import PAGE, render, table


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m benches.versions_doc"


def test_both_ends_of_every_range_are_tried() -> None:
    trials = plan()
    assert [(trial.package, trial.end) for trial in trials] == [
        (package, end) for package in PACKAGES for end in ("oldest", "newest")
    ]
    assert len({trial.name for trial in trials}) == len(trials)
    assert all(("==" in trial.requirements[0]) == (trial.end == "oldest") for trial in trials)


def test_the_record_is_of_the_ranges_that_are_stated(tmp_path: Path) -> None:
    record = read_record("versions")
    assert record is not None
    stated = {(trial.package, trial.end): list(trial.requirements) for trial in plan()}
    for row in record["trials"]:
        assert row["requirements"] == stated[row["package"], row["end"]], "run make versions"
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["torch>=1.5,<9", "onnxruntime>=1", "onnx>=1.3", "numpy>=1"]\n'
        '[project.optional-dependencies]\nhf = ["transformers>=4"]\n'
    )
    assert plan(project)[0].requirements == ("torch==1.5",)
    assert plan(project)[1].requirements == ("torch>=1.5,<9",)


def test_what_did_not_pass_is_told_in_its_own_words() -> None:
    row = {"package": "onnx", "end": "oldest", "failure": "no such release"}
    text = table({"trials": [row], "machine": {"python": "3.11.7", "system": "Linux 6.1"}})
    assert "passed" not in text
    assert "- oldest onnx, int8: no such release" in text
