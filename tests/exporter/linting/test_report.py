"""What is written: text, JSON values, SARIF, the table in the docs; and what is read to write it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export.errors import ArtifactError, ConfigError
from gpt_export.linting import tensors
from gpt_export.linting.docs_table import BEGIN, END, table, with_table
from gpt_export.linting.finding import Severity
from gpt_export.linting.rules import check_codes, rules
from gpt_export.linting.run import lint_path
from gpt_export.linting.sarif import relative_uri, to_sarif
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.text import print_report
from onnx import TensorProto, helper
from rich.console import Console

from tests.exporter.linting.faults import FAULTS
from tests.exporter.linting.graphs import good, point_at, save, value

DOCS = Path(__file__).parents[3] / "docs" / "lint.md"


def test_the_table_in_the_docs_is_current() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert with_table(page) == page, "run python -m gpt_export.linting.docs_table"


def test_the_table_has_a_row_a_rule() -> None:
    rows = [line for line in table().splitlines() if line.startswith("| GX")]
    assert [row.split("|")[1].strip() for row in rows] == [rule.code for rule in rules()]
    assert all(row.count("|") == 6 for row in rows)
    assert with_table(f"a{BEGIN}old{END}z").startswith(f"a{BEGIN}\n\n| code |")


def test_rules_are_said_in_one_line_each() -> None:
    for rule in rules():
        assert re.fullmatch(r"GX\d{3}", rule.code)
        assert "\n" not in rule.summary + rule.remedy
        assert not rule.summary.endswith(".")


def sarif(path: Path, base: Path) -> dict[str, Any]:
    return to_sarif(lint_path(path), base)


def test_sarif_has_what_code_scanning_needs(tmp_path: Path) -> None:
    path = FAULTS["GX101"][0](tmp_path)
    log = sarif(path, tmp_path)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "gpt-export lint"
    assert [each["id"] for each in driver["rules"]] == [rule.code for rule in rules()]
    assert run["results"]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"] == {"uri": "onnx/model.onnx"}
        assert location["physicalLocation"]["region"]["startLine"] == 1
    json.dumps(log, allow_nan=False)


def test_sarif_tells_results_apart(tmp_path: Path) -> None:
    results = sarif(FAULTS["GX413"][0](tmp_path), tmp_path)["runs"][0]["results"]
    prints = [each["partialFingerprints"]["primaryLocationLineHash"] for each in results]
    assert len(set(prints)) == len(prints) > 1


@pytest.mark.parametrize(
    ("name", "uri"), [("a b.onnx", "a%20b.onnx"), ("x/ü.onnx", "x/%C3%BC.onnx"), ("../q/m.onnx", "q/m.onnx")]
)
def test_uris_are_relative_and_escaped(tmp_path: Path, name: str, uri: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert relative_uri(base / name, base) == uri


def text(path: Path) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_report(lint_path(path), console)
    return console.export_text()


def test_the_text_says_that_there_is_nothing(tmp_path: Path) -> None:
    shown = " ".join(text(save(good(), tmp_path)).split())  # a long path moves where lines end
    assert "no findings" in shown
    assert "needs onnxruntime 1.14 or newer" in shown


def test_the_text_says_what_to_do_once_for_findings_of_one_kind(tmp_path: Path) -> None:
    model = good()
    for name in ("input_ids", "logits"):
        for each in (*model.graph.input, *model.graph.output):
            if each.name == name:
                each.type.tensor_type.shape.dim[0].dim_value = 1
    shown = text(save(model, tmp_path))
    assert shown.count("error    GX101") == 2
    assert shown.count("→ export again with a dynamic batch axis") == 1
    assert "2 errors, 2 warnings, 0 notes" in shown  # Triton's warnings on the same dims
    assert shown.index("error") < shown.index("warning")


def test_ignored_codes_are_left_out(tmp_path: Path) -> None:
    path = FAULTS["GX101"][0](tmp_path)
    report = lint_path(path, LintSettings(ignore=frozenset({"GX101", "GX431"})))
    assert report.findings == ()
    assert report.exit_code == 0
    assert lint_path(path).exit_code == 1


def test_unknown_codes_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'GX999' is no code of a rule; known are GX001, GX101,"):
        check_codes(["GX999"])


def test_a_folder_is_linted_file_by_file(tmp_path: Path) -> None:
    save(good(), tmp_path)
    save(good(), tmp_path, "model_q4.onnx")
    report = lint_path(tmp_path)
    assert [file.path.name for file in report.files] == ["model.onnx", "model_q4.onnx"]
    assert report.counts == {Severity.ERROR: 0, Severity.WARNING: 0, Severity.NOTE: 0}


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no \.onnx file"):
        lint_path(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x08", bytes(1000), good().SerializeToString()[:-100], b'{"a": 1}']
)
def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is not an ONNX model") as caught:
        lint_path(path)
    assert "\n" not in str(caught.value)


def test_linting_needs_no_torch() -> None:
    code = "import sys, gpt_export.cli.lint_output; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


PEAK = """
import sys
from pathlib import Path
from gpt_export.linting import tensors
from gpt_export.linting.run import lint_path

def peak_kb():  # not ru_maxrss, which a process inherits from the one that started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

tensors.CHUNK_BYTES = int(sys.argv[2])
before = peak_kb()
report = lint_path(Path(sys.argv[1]))
print(peak_kb() - before, *sorted({each.code for each in report.findings}))
"""

LIMIT_KB = 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_memory_stays_bounded_on_large_weights(tmp_path: Path) -> None:
    rows, columns = 8192, 4096
    size = rows * columns * 4
    model = good()
    path = tmp_path / "onnx" / "model.onnx_data"
    path.parent.mkdir()
    with path.open("wb") as file:
        line = np.arange(columns, dtype=np.float32).tobytes()
        for _ in range(rows):
            file.write(line)
        file.truncate(3 * size)  # the third one is a hole of zeros
        file.seek(size)
        for _ in range(rows):
            file.write(line)
    for i, name in enumerate(("one", "two", "zeros")):
        each = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, columns])
        point_at(each, path.name, i * size, size)
        model.graph.initializer.append(each)
        model.graph.node.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        model.graph.output.append(value(f"{name}_out", TensorProto.FLOAT, [rows, columns]))
    saved = save(model, tmp_path)
    grown_kb, found = lint_apart(saved, tensors.CHUNK_BYTES)
    assert "GX121" in found
    assert grown_kb < LIMIT_KB  # of 400 MB of weights
    assert lint_apart(saved, 2**30)[0] > LIMIT_KB, "the limit notices when weights are read whole"


def lint_apart(path: Path, chunk_bytes: int) -> tuple[int, list[str]]:
    """What the peak of memory grows by in a process of its own, and the codes that are found."""
    command = [sys.executable, "-c", PEAK, str(path), str(chunk_bytes)]
    grown, *found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(grown), found


def test_folders_of_exports_that_are_being_written_are_left_alone(tiny_original: Path, tmp_path: Path) -> None:
    place = tmp_path / "files"
    shutil.copytree(tiny_original / "onnx", place / "mine")
    shutil.copytree(tiny_original / "onnx", place / ".gpt2.staging-abc" / "onnx")
    assert [file.path for file in lint_path(place).files] == [place / "mine" / "model.onnx"]
