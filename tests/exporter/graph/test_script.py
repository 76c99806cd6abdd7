from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from gpt_export.errors import ScriptError
from gpt_export.graph.script import deprecations_hidden, reason, script
from torch import Tensor, nn

from tests import samples


def test_the_result_is_a_script_and_not_a_trace() -> None:
    scripted = script(samples.Branching().eval())
    assert isinstance(scripted, torch.jit.ScriptModule)
    assert not isinstance(scripted, torch.jit.TopLevelTracedModule)
    assert "prim::If" in str(scripted.graph)


def test_both_branches_survive_scripting() -> None:
    module = samples.seeded(samples.Branching()).eval()
    scripted = script(module)
    for sequence in (2, 3, 4, 9):
        ids = torch.from_numpy(samples.random_ids(2, sequence))
        assert torch.equal(scripted(ids), module(ids))


def test_the_branching_sample_tells_a_trace() -> None:
    module = samples.seeded(samples.Branching()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, torch.zeros((1, 2), dtype=torch.int64))
    ids = torch.from_numpy(samples.random_ids(2, 9))
    assert not torch.allclose(traced(ids), module(ids))


def test_the_script_shares_the_modules_parameters() -> None:
    module = samples.Plain()
    scripted = script(module)
    assert scripted.emb.weight.data_ptr() == module.emb.weight.data_ptr()


def test_a_module_that_does_not_script_is_shown_with_torchs_reason_file_and_line() -> None:
    with pytest.raises(ScriptError) as caught:
        script(samples.DoesNotScript())
    lines, first = inspect.getsourcelines(samples.DoesNotScript)
    line = first + next(i for i, text in enumerate(lines) if "numpy()" in text)
    message = str(caught.value)
    assert message.startswith("DoesNotScript does not script: ")
    assert "attribute or method 'numpy'" in message
    assert f"{inspect.getsourcefile(samples)}, line {line}" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None
    assert caught.value.exit_code == 1


def test_a_second_attempt_ends_for_the_same_reason_as_the_first() -> None:
    messages = []
    for _ in range(2):
        with pytest.raises(ScriptError) as caught:
            script(samples.DoesNotScript())
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_torchs_reason_is_one_line_even_without_a_place() -> None:
    assert reason(RuntimeError("no:\n  way\n")) == "no"
    assert reason(KeyError()) == "KeyError"


def test_deprecations_of_torchscript_are_hidden_and_other_warnings_are_not() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with deprecations_hidden():
            warnings.warn(
                "`torch.jit.script` is deprecated. Please switch to `torch.compile`", DeprecationWarning, stacklevel=1
            )
            warnings.warn("the weights are deprecated", DeprecationWarning, stacklevel=1)
            warnings.warn("dubious numbers", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["the weights are deprecated", "dubious numbers"]


def test_the_deprecation_is_there_without_hiding_it() -> None:
    code = "import torch; torch.jit.script(torch.nn.Identity())"
    run = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "DeprecationWarning" in run.stderr


def test_an_export_shows_the_modules_own_warnings_and_none_of_torchs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import sys, warnings, gpt_export\n"
        "from tests import samples\n"
        "class Warns(samples.Plain):\n"
        "    def eval(self):\n"
        "        warnings.warn('mind the gap', UserWarning)\n"
        "        return super().eval()\n"
        "gpt_export.export(Warns(), sys.argv[1], context_length=samples.CONTEXT, vocab_size=samples.VOCAB)\n"
    )
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "out")]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert run.returncode == 0, run.stderr
    assert [line.partition("main.py:")[2] for line in run.stderr.splitlines() if "Warning: " in line] == [
        "5: UserWarning: mind the gap"
    ]
    assert run.stdout == ""


class Ageing:
    """An attribute that says something to whoever reads it, as some of transformers' do."""

    def __get__(self, instance: object, owner: type) -> int:
        warnings.warn("`width` is deprecated", FutureWarning, stacklevel=2)
        sys.stdout.write("`width` is read")
        return 2


class Aged(nn.Module):
    width = Ageing()

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_what_an_attribute_says_when_torch_reads_it_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        script(Aged())
    assert not seen
    assert capfd.readouterr() == ("", "")
