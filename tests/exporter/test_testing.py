"""`gpt_export.testing`, the pytest plugin, and the example that users copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, ConfigError, SourceError
from gpt_export.gate.report import ParityReport
from gpt_export.testing import ParityAssertionError, assert_parity
from gpt_export_models.gpt import GPTModel
from torch import nn

from tests import samples

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"


def other_weights() -> nn.Module:
    module = samples.tiny_dummy()
    module.out_head.weight.data[3, 5] += 0.25
    return module


def hugging_face(seed: int = 0) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=61, n_positions=32, n_embd=24, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint as transformers writes it, and its artifact with a cache."""
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.pipeline.stages import export
    from gpt_export.sources.gpt import checkpoint_source

    folder = tmp_path_factory.mktemp("cached")
    hugging_face().save_pretrained(folder / "checkpoint")
    export(checkpoint_source(folder / "checkpoint"), ExportConfig(), folder / "artifact")
    return folder / "checkpoint", folder / "artifact"


def test_an_artifact_is_its_module(tiny: Path) -> None:
    report = assert_parity(tiny, samples.tiny_dummy())
    assert isinstance(report, ParityReport)
    assert report.passed
    assert report.weights is not None
    assert report.weights.checked > 0
    assert assert_parity(Artifact.open(tiny), samples.tiny_dummy()).passed
    assert assert_parity(str(tiny), samples.tiny_dummy()).passed


def test_another_module_fails_with_the_report_in_words(tiny: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_parity(tiny, other_weights())
    message = str(caught.value)
    assert message.startswith(f"{tiny} is not the model: ")
    assert "weight out_head.weight: element [3, 5] is " in message
    assert "logits differ by " in message
    assert "first fault outside the blocks, head: " in message
    assert "out_head.weight is not the source's" in message
    assert isinstance(caught.value, ParityAssertionError)
    assert not caught.value.report.passed


@pytest.mark.parametrize("training", [True, False])
def test_the_module_comes_back_in_its_mode(tiny: Path, training: bool) -> None:
    module = samples.tiny_dummy().train(training)
    module.drop_emb.train(not training)
    assert_parity(tiny, module, cases=("grid-1x17",))
    assert module.training is training
    assert module.drop_emb.training is not training


def test_cases_can_be_chosen(tiny: Path) -> None:
    report = assert_parity(tiny, samples.tiny_dummy(), cases=("grid-1x17", "ids-extreme"))
    assert [case.name for case in report.targets["onnx"]] == ["ids-extreme", "grid-1x17"]
    assert len(assert_parity(tiny, samples.tiny_dummy(), cases="grid").targets["onnx"]) > 3
    with pytest.raises(ConfigError, match="there is no case nonsense"):
        assert_parity(tiny, samples.tiny_dummy(), cases="nonsense")


def test_an_onnx_file_is_compared_as_well(tiny: Path) -> None:
    file = tiny / "onnx" / "model.onnx"
    assert assert_parity(file, samples.tiny_dummy(), context_length=samples.CONTEXT).passed
    with pytest.raises(AssertionError, match="logits differ by"):
        assert_parity(file, other_weights(), context_length=samples.CONTEXT)


def test_a_cached_artifact_is_its_checkpoint(cached: tuple[Path, Path]) -> None:
    checkpoint, artifact = cached
    report = assert_parity(artifact, checkpoint)
    assert report.weights is not None
    assert "cache-steps" in [case.name for case in report.targets["onnx"]]
    assert assert_parity(artifact / "onnx" / "model.onnx", str(checkpoint)).passed


def test_a_cached_artifact_is_the_transformers_model_itself(cached: tuple[Path, Path]) -> None:
    """Another class with other names, whose output is no tensor: weights are matched by content."""
    _, artifact = cached
    report = assert_parity(artifact, hugging_face())
    assert "cache-steps" in [case.name for case in report.targets["onnx"]]
    assert {deviation.layer for deviation in report.layers} >= {0, 1}

    wrong = hugging_face()
    with torch.no_grad():
        wrong.transformer.h[1].mlp.c_fc.weight[3, 4] += 0.5
    with pytest.raises(AssertionError, match="first fault in layer 1, mlp: "):
        assert_parity(artifact, wrong)


def test_a_cached_artifact_is_the_books_model(cached: tuple[Path, Path]) -> None:
    from gpt_export_models.checkpoints import read_checkpoint

    checkpoint, artifact = cached
    read = read_checkpoint(checkpoint)
    model = GPTModel(read.config)
    model.load_state_dict(dict(read.tensors))
    report = assert_parity(artifact, model.eval())
    assert report.weights is not None
    assert report.weights.passed


def test_without_a_model_the_manifest_must_name_one(tiny: Path) -> None:
    with pytest.raises(SourceError, match="which its manifest cannot rebuild"):
        assert_parity(tiny)


def test_a_damaged_artifact_is_no_failed_assertion(tiny: Path) -> None:
    with (tiny / "onnx" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="is damaged"):
        assert_parity(tiny, samples.tiny_dummy())


def test_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, gpt_export.pytest_plugin; print([m for m in ('torch', 'onnx', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


USERS_TEST = """
from tests import samples
from tests.exporter.test_testing import other_weights

def test_right(assert_parity):
    assert assert_parity({artifact!r}, samples.tiny_dummy()).passed

def test_wrong(assert_parity):
    assert_parity({artifact!r}, other_weights())

def test_own_cases(assert_parity):
    report = assert_parity({artifact!r}, samples.tiny_dummy(), cases="ids")
    assert len(report.targets["onnx"]) == 2
"""


def test_the_fixture_and_the_summary(pytester: pytest.Pytester, tiny: Path) -> None:
    pytester.makepyfile(USERS_TEST.format(artifact=str(tiny)))
    result = pytester.runpytest_inprocess(
        "-p", "gpt_export.pytest_plugin", "--gpt-export-cases", "grid-1x17,ids-extreme"
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_parity(*, other_weights())",
            "E *is not the model: * of 4 cases failed*",
            "*first fault outside the blocks, head: *",
            "=* gpt-export parity *=",
            f"PASSED {tiny}: 4 cases, * positions, largest difference *% of the limit, * weights equal bit for bit",
            f"FAILED {tiny}: weight out_head.weight *; first fault outside the blocks, head: *",
        ]
    )


def test_a_run_without_the_fixture_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess("-p", "gpt_export.pytest_plugin")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*gpt-export parity*")


def test_the_option_is_in_the_help(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("-p", "gpt_export.pytest_plugin", "--help")
    result.stdout.fnmatch_lines(["*--gpt-export-cases=CASES*"])


def test_the_example_workflow_runs_as_it_stands(cached: tuple[Path, Path], tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    checkpoint, _ = cached
    (tmp_path / "tests").mkdir()
    shutil.copy(EXAMPLES / "test_parity.py", tmp_path / "tests")
    environment = os.environ | workflow["env"] | {"CHECKPOINT": str(checkpoint)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    steps = [step["run"] for step in workflow["jobs"]["parity"]["steps"] if "run" in step]
    commands = [step for step in steps if "pip install" not in step]
    assert len(commands) == 3
    for command in commands:
        command = command.replace("python -m pytest", "python -m pytest -p gpt_export.pytest_plugin")
        done = subprocess.run(
            ["bash", "-euc", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "artifacts" / "gpt2" / "report.html").exists()
    assert 'name="gpt_export_parity" value="PASSED artifacts/gpt2: ' in (tmp_path / "parity.xml").read_text()


def test_the_example_fails_on_another_checkpoint(cached: tuple[Path, Path], tmp_path: Path) -> None:
    _, artifact = cached
    hugging_face(seed=1).save_pretrained(tmp_path / "other")
    environment = os.environ | {"CHECKPOINT": str(tmp_path / "other"), "ARTIFACT": str(artifact)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "gpt_export.pytest_plugin", "-q", str(EXAMPLES / "test_parity.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "is not the model: " in done.stdout
    assert f"FAILED {artifact}: weight " in done.stdout
