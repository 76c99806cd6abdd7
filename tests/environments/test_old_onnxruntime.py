"""Artifacts where torch is not installed and onnxruntime is the oldest that is promised."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.releases import MINIMUM_ONNXRUNTIME
from gpt_export.graph.opsets import OPSETS
from torch import nn

from tests import samples
from tests.environments.conftest import started_in
from tests.tolerances import LIMITS

OUR_SESSION = textwrap.dedent(
    """
    import sys
    import numpy as np, onnxruntime
    import gpt_export
    from gpt_export.runtime.session import Session
    session = Session.open(sys.argv[1])
    np.save(sys.argv[3], session.logits(np.load(sys.argv[2])))
    print(onnxruntime.__version__, gpt_export.__file__, *sorted(sys.modules.keys() & {"torch", "onnx", "tiktoken"}))
    """
)
PLAIN_SESSION = textwrap.dedent(
    """
    import sys
    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1] + "/onnx/model.onnx")
    (input_ids,) = session.get_inputs()
    np.save(sys.argv[3], session.run(None, {input_ids.name: np.load(sys.argv[2])})[0])
    """
)


@pytest.fixture
def logits_there(old_environment: Path, run_in: Callable[..., str], tmp_path: Path) -> Callable[..., np.ndarray]:
    def run(code: str, artifact: Path, ids: np.ndarray) -> np.ndarray:
        np.save(tmp_path / "ids.npy", ids)
        out = run_in(
            old_environment,
            "-c",
            code,
            str(artifact),
            str(tmp_path / "ids.npy"),
            str(tmp_path / "logits.npy"),
            cwd=tmp_path,
        )
        if code is OUR_SESSION:
            version, where, *heavy = out.split()
            assert version.startswith(f"{MINIMUM_ONNXRUNTIME}.")
            assert Path(where).is_relative_to(old_environment.parents[1])
            assert heavy == []
        return np.load(tmp_path / "logits.npy")

    return run


def test_torch_is_not_there(old_environment: Path, run_in: Callable[..., str], tmp_path: Path) -> None:
    code = "import importlib.util; print([n for n in ('torch', 'onnx', 'tiktoken') if importlib.util.find_spec(n)])"
    assert run_in(old_environment, "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_front_door_can_be_looked_at_there(
    old_environment: Path, run_in: Callable[..., str], tmp_path: Path
) -> None:
    code = "import gpt_export, pydoc; print(pydoc.plain(pydoc.render_doc(gpt_export)))"
    text = run_in(old_environment, "-c", code, cwd=tmp_path)
    assert all(name in text for name in ("export(source", "validate(artifact", "lint(path", "class Session("))


@pytest.mark.parametrize("command", [("gpt-export",), ("gpt-export", "onnx", "--help"), ("python", "-m", "gpt_export")])
def test_the_command_line_says_there_what_to_install(
    command: tuple[str, ...], old_environment: Path, tmp_path: Path
) -> None:
    script, *rest = command
    arguments = [] if script == "python" else [str(old_environment.with_name(script))]
    done = started_in(old_environment, *arguments, *rest, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: this needs click, ")
    packages = shlex.split(line.partition("python -m pip install ")[2])
    names = {package.partition(">")[0].partition("<")[0] for package in packages}
    assert {"click", "onnx", "onnx-ir", "torch", "tokenizers"} <= names
    assert not names & {"numpy", "onnxruntime", "transformers", "pytest"}


@pytest.mark.parametrize("code", [OUR_SESSION, PLAIN_SESSION], ids=["our session", "plain onnxruntime"])
def test_the_main_artifact_gives_eagers_logits_there(
    code: str, artifact_124m: Path, dummy_124m: nn.Module, logits_there: Callable[..., np.ndarray]
) -> None:
    ids = samples.random_ids(2, 9, 50257)
    found = logits_there(code, artifact_124m, ids)
    assert np.abs(found - samples.eager_logits(dummy_124m, ids)).max() <= LIMITS["fp32"]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("make", [samples.tiny_gpt, samples.Buffers], ids=lambda make: make.__name__)
def test_every_opset_gives_eagers_logits_there(
    opset: int,
    make: Callable[[], nn.Module],
    export_tiny: Callable[..., Artifact],
    logits_there: Callable[..., np.ndarray],
) -> None:
    module = samples.seeded(make()).eval()
    artifact = export_tiny(module, opset=opset)
    ids = samples.random_ids(3, 7)
    found = logits_there(OUR_SESSION, artifact.folder, ids)
    assert np.abs(found - samples.eager_logits(module, ids)).max() <= LIMITS["fp32"]
