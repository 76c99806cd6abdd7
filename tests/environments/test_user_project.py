"""A project with packages of its own called as our source folders are, beside the installed wheel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments.conftest import started_in

NAMES = ("models", "exporter", "tests", "benches", "artifacts", "docs")
NET = """
import torch

class Net(torch.nn.Module):
    context_length = 12
    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(29, 4)
        self.head = torch.nn.Linear(4, 29)
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(ids))

def factory():
    torch.manual_seed(7)
    return Net()
"""
SCRIPT = """
import models, exporter, tests, benches, gpt_export
from models.net import factory
from exporter.own import ANSWER

if __name__ == "__main__":
    model = factory()
    gpt_export.export(model, "by-script", context_length=12, vocab_size=29)
    logits = gpt_export.Session.open("by-script").logits([[1, 2, 3]])
    import torch
    print(ANSWER, abs(logits - model(torch.tensor([[1, 2, 3]])).detach().numpy()).max() < 1e-5)
    print(*(package.__file__ for package in (models, exporter, tests, benches)))
    assert gpt_export.validate("by-script", model).passed
    assert gpt_export.lint("by-script").exit_code == 0
"""
OWN_TEST = """
from benches.own import ANSWER as slow
from exporter.own import ANSWER
from models.net import factory
from tests import own

def test_ours():
    assert ANSWER == slow == own.ANSWER
    assert factory().head.out_features == 29
"""
PARITY_TEST = """
from models.net import factory

def test_the_export_is_the_model(assert_parity):
    assert_parity("by-script", factory())

def test_another_model_is_not(assert_parity):
    model = factory()
    model.head.weight.data[3, 1] += 1
    try:
        assert_parity("by-script", model)
    except AssertionError as error:
        assert "is not the model" in str(error)
    else:
        raise RuntimeError("it passed")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "own.py").write_text("ANSWER = 42\n")
    (folder / "models" / "net.py").write_text(NET)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "tests" / "test_own.py").write_text(OWN_TEST)
    return folder


@pytest.fixture(scope="module")
def exported(project: Path, wheel_environment: Path) -> str:
    """What the project's script printed; it leaves `by-script`."""
    done = started_in(wheel_environment, "train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_takes_the_projects_models(
    project: Path, wheel_environment: Path, run_in: Callable[..., str]
) -> None:
    script = str(wheel_environment.with_name("gpt-export"))
    source = "models.net:factory"
    made = json.loads(run_in(wheel_environment, script, "onnx", source, "--output", "made", "--json", cwd=project))
    assert made["manifest"]["parity"]["passed"] is True
    run_in(wheel_environment, script, "validate", "made", "--against", source, cwd=project)


def test_a_script_imports_its_own_packages_and_ours(project: Path, exported: str) -> None:
    first, second = exported.splitlines()
    assert first == "42 True"
    assert [Path(path) for path in second.split()] == [
        project / name / "__init__.py" for name in ("models", "exporter", "tests", "benches")
    ]


def test_pytest_runs_the_projects_tests_with_the_plugin_installed(
    project: Path, wheel_environment: Path, run_in: Callable[..., str]
) -> None:
    out = run_in(wheel_environment, "-m", "pytest", "tests/test_own.py", cwd=project)
    assert "1 passed" in out
    assert "gpt-export parity" not in out


def test_pytest_runs_the_projects_tests_without_the_plugin(
    project: Path, wheel_environment: Path, run_in: Callable[..., str]
) -> None:
    off = ("-p", "no:gpt_export.pytest_plugin")
    assert "1 passed" in run_in(wheel_environment, "-m", "pytest", *off, "tests/test_own.py", cwd=project)
    assert "--gpt-export-cases" not in run_in(wheel_environment, "-m", "pytest", *off, "--help", cwd=project)
    assert "--gpt-export-cases" in run_in(wheel_environment, "-m", "pytest", "--help", cwd=project)


@pytest.mark.usefixtures("exported")
def test_the_plugin_compares_the_projects_models(
    project: Path, wheel_environment: Path, run_in: Callable[..., str]
) -> None:
    (project / "tests" / "test_parity.py").write_text(PARITY_TEST)
    out = run_in(wheel_environment, "-m", "pytest", "tests/test_parity.py", "tests/test_own.py", cwd=project)
    assert "3 passed" in out
    assert "PASSED by-script" in out
    assert "FAILED by-script" in out
