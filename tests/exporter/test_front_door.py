"""`import gpt_export`: what is there, what it costs, and that every name does what it says."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import gpt_export
import pytest
from gpt_export import errors, requirements
from gpt_export.gate.report import ParityReport
from gpt_export.linting.report import LintReport

from tests import samples

FUNCTIONS = ("export", "lint", "validate")
CLASSES = ("ExportConfig", "Session")


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_dir_lists_the_front_door_and_nothing_else() -> None:
    wanted = sorted([*FUNCTIONS, *CLASSES, *errors.__all__, "__version__"])
    assert dir(gpt_export) == wanted
    # Wings that were imported meanwhile are attributes of the package, but no part of the front door.
    code = "import gpt_export, gpt_export.pipeline.stages, gpt_export.linting.run; print(sorted(dir(gpt_export)))"
    assert in_a_new_process(code) == str(wanted)


def test_every_name_can_be_had_before_and_after_the_wings_were_imported() -> None:
    code = (
        "import gpt_export\n"
        "before = {name: getattr(gpt_export, name) for name in dir(gpt_export)}\n"
        "import importlib, pkgutil\n"
        "for found in pkgutil.walk_packages(gpt_export.__path__, 'gpt_export.'):\n"
        "    if not found.name.endswith(('__main__', '.child')): importlib.import_module(found.name)\n"
        "print([name for name in dir(gpt_export) if getattr(gpt_export, name) is not before[name]])"
    )
    assert in_a_new_process(code) == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gpt_export' has no attribute 'exprot'"):
        gpt_export.exprot  # noqa: B018


def test_importing_loads_nothing_of_anybody_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import gpt_export\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    assert in_a_new_process(code) == "['gpt_export']"


def test_only_calls_load_torch() -> None:
    code = (
        "import sys, pydoc, gpt_export; pydoc.render_doc(gpt_export)\n"
        "print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    )
    assert in_a_new_process(code) == "[]"


def test_help_shows_every_name_with_all_its_parameters() -> None:
    text = pydoc.render_doc(gpt_export, renderer=pydoc.plaintext)
    for name in FUNCTIONS:
        signature = inspect.signature(getattr(gpt_export, name))
        assert f"{name}{signature}" in text
        assert not [p for p in signature.parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in (*CLASSES, *errors.__all__):
        assert f"class {name}(" in text
    assert f"__init__{inspect.signature(gpt_export.ExportConfig.__init__)}" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_explained_where_it_stands(name: str) -> None:
    function = getattr(gpt_export, name)
    text = inspect.getdoc(function) or ""
    first = next(iter(inspect.signature(function).parameters))
    for parameter in inspect.signature(function).parameters:
        assert parameter == first or f"    {parameter}: " in text, parameter
    assert "see `ExportConfig`" not in text
    assert "Raises:" in text


def test_validate_gives_the_report_whether_it_passed_or_not(tiny: Path) -> None:
    assert isinstance(report := gpt_export.validate(tiny, samples.tiny_dummy()), ParityReport)
    assert report.passed
    other = samples.tiny_dummy()
    other.out_head.weight.data[3, 5] += 0.25
    failed = gpt_export.validate(str(tiny), other)
    assert not failed.passed
    assert any("out_head.weight" in failure for failure in failed.failures)


def test_validate_tells_its_stages_and_leaves_the_module_in_its_mode(tiny: Path) -> None:
    stages: list[str] = []
    module = samples.tiny_dummy().train()
    gpt_export.validate(tiny, module, on_stage=stages.append)
    assert stages[0] == "verify hashes"
    assert module.training
    assert all(part.training for part in module.modules())


def test_validate_takes_what_the_command_line_takes(tiny: Path, tmp_path: Path) -> None:
    module = samples.tiny_dummy()
    with pytest.raises(gpt_export.ConfigError, match="adapter, base is for a source by name, and this is a module"):
        gpt_export.validate(tiny, module, adapter=tmp_path, base=tmp_path)
    with pytest.raises(gpt_export.ConfigError, match=r"roles are for an \.onnx file"):
        gpt_export.validate(tiny, module, roles=["x=ids"])
    with pytest.raises(gpt_export.ConfigError, match="the file has no input or output 'x'"):
        gpt_export.validate(tiny / "onnx" / "model.onnx", module, roles=["x=ids"])


def test_validate_refuses_what_it_cannot_compare_with(tiny: Path) -> None:
    with pytest.raises(gpt_export.SourceError, match="cannot rebuild"):
        gpt_export.validate(tiny)
    with pytest.raises(gpt_export.ConfigError, match="nonsense"):
        gpt_export.validate(tiny, samples.tiny_dummy(), cases="nonsense")


def test_lint_gives_the_findings_of_every_variant(tiny: Path) -> None:
    report = gpt_export.lint(tiny)
    assert isinstance(report, LintReport)
    assert [file.path.name for file in report.files] == ["model.onnx"]
    assert report.exit_code == 0
    found = {finding.code for finding in report.findings}
    assert found
    assert {finding.code for finding in gpt_export.lint(str(tiny), ignore=found).findings} == set()


def test_lint_holds_a_file_to_the_consumers_and_the_release_that_are_named(tiny: Path) -> None:
    demanded = gpt_export.lint(tiny, consumers=["onnxruntime-genai"])
    assert demanded.exit_code == 1
    assert {finding.consumer for finding in demanded.findings} <= {None, "onnxruntime-genai"}
    with pytest.raises(gpt_export.ConfigError, match=r"optimum, transformers\.js"):
        gpt_export.lint(tiny, consumers=["nobody"])
    with pytest.raises(gpt_export.ConfigError, match=r"0\.1"):
        gpt_export.lint(tiny, target_ort="0.1")


def test_a_missing_requirement_is_told_with_the_command_that_installs_it() -> None:
    error = ModuleNotFoundError("No module named 'onnx_ir.passes'", name="onnx_ir.passes")
    sentence = requirements.explain_missing(error, ("onnx-ir>=0.1.14", "rich>=13"))
    assert sentence is not None
    assert "needs onnx_ir" in sentence
    assert sentence.endswith("python -m pip install 'onnx-ir>=0.1.14' 'rich>=13'")


def test_a_module_that_is_no_requirement_is_not_explained_away() -> None:
    error = ModuleNotFoundError("No module named 'gpt_export.nothing'", name="gpt_export.nothing")
    assert requirements.explain_missing(error, ("click>=8.1",)) is None
    assert requirements.missing_requirements() == ()
