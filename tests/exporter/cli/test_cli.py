"""The command line as a user meets it: help, results, progress, errors, exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from gpt_export.version import __version__

from tests import samples
from tests.conftest import GPT_EXPORT, Run, tree

Cli = Callable[..., Run]
TINY = "tests.samples:tiny_dummy"

DIFFERS = """
import torch
from tests import samples

class Differs(samples.WithEmbedding):
    context_length = 24
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.head(self.emb(ids))
        if torch.jit.is_scripting():
            y = y * 1.001
        return y

def make():
    return Differs()
"""


def modules_loaded_by(*args: str) -> set[str]:
    code = (
        "import sys\nfrom gpt_export.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stderr.split()}


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], *([command, "--help"] for command in ("onnx", "torchscript", "validate", "inspect"))],
    ids=" ".join,
)
def test_help_loads_nothing_slow(args: list[str]) -> None:
    slow = {"torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "tiktoken", "rich"}
    assert modules_loaded_by(*args) & slow == set()


def test_the_module_listing_tells_a_slow_import(tiny: Path) -> None:
    assert "onnx" in modules_loaded_by("inspect", str(tiny))


def test_help_names_commands_and_exit_codes(cli: Cli) -> None:
    run = cli("--help")
    assert run.code == 0
    for word in ("onnx", "torchscript", "validate", "inspect", "Exit codes", "130"):
        assert word in run.out


def test_version(run_command: Cli) -> None:
    run = run_command("--version")
    assert (run.code, run.err) == (0, "")
    assert __version__ in run.out


def test_json_of_the_main_job_is_complete_and_alone_on_stdout(exported: tuple[Path, Run]) -> None:
    folder, run = exported
    found = run.json()
    assert found["artifact"] == str(folder)
    assert found["manifest"] == json.loads((folder / "manifest.json").read_text())
    told = run.err.splitlines()
    assert len(told) > 5
    assert all(re.fullmatch(r"✓ \S.*  [\d:.]+( s)?", line) for line in told[:-1])
    assert told[-1].startswith("  done after ")


def test_the_default_output_is_below_artifacts(user_module: Callable[[str], str], cli: Cli, tmp_path: Path) -> None:
    name = user_module("from tests.samples import tiny_dummy as my_tiny_gpt")
    run = cli("onnx", f"{name}:my_tiny_gpt")
    assert run.code == 0, run.err
    assert (tmp_path / "artifacts" / "my-tiny-gpt" / "manifest.json").is_file()


def test_a_factory_in_the_current_folder_is_found(user_module: Callable[[str], str], run_command: Cli) -> None:
    name = user_module(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    context_length = 12\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.emb = torch.nn.Embedding(11, 11)\n"
        "    def forward(self, ids: torch.Tensor) -> torch.Tensor:\n"
        "        return self.emb(ids)\n"
    )
    run = run_command("onnx", f"{name}:Mine", "--output", "out", "--json", "--seed", "7")
    assert run.code == 0, run.err
    manifest = run.json()["manifest"]
    assert manifest["model"]["vocab_size"] == 11
    assert manifest["model"]["context_length"] == 12
    assert manifest["source"] == {"kind": "import", "factory": f"{name}:Mine", "seed": 7, "road": "script"}


def test_a_context_that_is_not_stated_is_found_and_noted(user_module: Callable[[str], str], cli: Cli) -> None:
    name = user_module("from tests.samples import tiny_dummy\ndef make():\n    return tiny_dummy()\n")
    run = cli("onnx", f"{name}:make", "--output", "out", "--json")
    manifest = run.json()["manifest"]
    assert manifest["model"]["context_length"] == samples.CONTEXT
    assert any("context length 24 is the longest it runs on" in note for note in manifest["parity"]["notes"])


def test_a_failed_comparison_exits_3_and_publishes_nothing(
    user_module: Callable[[str], str], cli: Cli, tmp_path: Path
) -> None:
    name = user_module(DIFFERS)
    before = set(tmp_path.iterdir())
    run = cli("onnx", f"{name}:make", "--output", "out", "--json")
    run.refused(3, "the export is not the model", "case ", "logits differ by", "is allowed", "nothing was published")
    body = run.json()
    assert body["error"]["exit_code"] == 3
    assert body["error"]["type"] == "ParityError"
    assert body["parity"]["passed"] is False
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "__pycache__"}


def test_gate_report_publishes_and_says_so_on_the_screen(user_module: Callable[[str], str], cli: Cli) -> None:
    name = user_module(DIFFERS)
    run = cli("onnx", f"{name}:make", "--output", "out", "--gate", "report")
    assert run.code == 0, run.err
    assert "Published with FAILED parity: out" in run.out
    assert "FAILED onnx, case " in run.out
    assert json.loads(Path("out/manifest.json").read_text())["parity"]["passed"] is False
    cli("validate", "out", "--against", f"{name}:make").refused(3, "logits differ by", "do not use out")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["onnx", "gpt5"], 2, ["'gpt5'", "known are dummy-124m", "package.module:factory"]),
        (["onnx", "no.such.module:f"], 2, ["no.such.module:f cannot be imported", "No module named"]),
        (["onnx", "tests.samples:nothing"], 2, ["cannot be imported", "'nothing'"]),
        (["onnx", "tests.samples:VOCAB"], 2, ["tests.samples:VOCAB"]),
        (["onnx", "tests.samples:random_ids"], 2, ["needs arguments (batch, sequence)", "--config"]),
        (["onnx", "tests.samples:TINY_CONFIG.copy"], 2, ["gives a dict, not a torch.nn.Module"]),
        (["onnx", "tests.samples:DoesNotScript"], 1, ["DoesNotScript does not script", "numpy", "samples.py, line "]),
        (["onnx", "tests.samples:NoOperator"], 1, ["aten::special_bessel_j0"]),
        (["onnx", "--text", ""], 2, ["the text '' gives no token"]),
        (["onnx", "--text", "word " * 1100], 2, ["1101 tokens, the context is 1024; shorten the text"]),
        (["onnx", TINY, "--text", "x"], 2, ["no tokenizer for it; leave "]),
        (["validate", "nowhere"], 1, ["nowhere does not exist", "name an artifact folder"]),
        (["inspect", "nowhere"], 1, ["nowhere does not exist"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_told_in_one_sentence_with_its_exit_code(
    cli: Cli, tmp_path: Path, args: list[str], code: int, words: list[str]
) -> None:
    output = ["--output", str(tmp_path / "out")] if args[0] == "onnx" else []
    run = cli(*args, *output)
    sentence = run.refused(code, *words)
    assert run.out == ""
    assert len(sentence) < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["onnx", "--opset", "16"], ["16", "17<=x<=20"]),
        (["onnx", "--opset", "21"], ["21", "17<=x<=20"]),
        (["onnx", "--gate", "sometimes"], ["'sometimes'", "enforce"]),
        (["onnx", "--cases", "few"], ["few", "default", "full"]),
        (["onnx", "--no-such-option"], ["--no-such-option"]),
        (["onnx", "--seed", "-1"], ["-1"]),
        (["exprot"], ["exprot"]),
        (["inspect"], ["PATH"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_exits_2_and_says_what_is_allowed(
    cli: Cli, args: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # away from what `make export` wrote
    run = cli(*args)
    assert run.code == 2
    assert "Traceback" not in run.err
    for word in words:
        assert word in run.err


def test_a_failure_is_json_on_stdout_and_a_sentence_on_stderr(cli: Cli) -> None:
    run = cli("onnx", "gpt5", "--json")
    sentence = run.refused(2, "known are")
    error = run.json()["error"]
    assert error == {"type": "SourceError", "message": sentence.removeprefix("Error: "), "exit_code": 2}


def test_wrong_usage_is_json_too(cli: Cli) -> None:
    run = cli("onnx", "--json", "--opset", "21")
    assert run.code == 2
    assert run.json()["error"]["exit_code"] == 2


def test_debug_shows_the_traceback(cli: Cli) -> None:
    run = cli("onnx", "gpt5", "--debug")
    assert run.code == 2
    assert "Traceback (most recent call last)" in run.err
    assert "SourceError" in run.err


def test_an_error_nobody_foresaw_has_no_traceback_either(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpt_export.cli.publish

    def breaks(*_args: object, **_options: object) -> None:
        raise LookupError("surprise")

    monkeypatch.setattr(gpt_export.cli.publish, "read_source", breaks)
    cli("onnx").refused(1, "unexpected LookupError: surprise", "--debug")


@pytest.mark.parametrize(
    ("error", "code", "word"), [(KeyboardInterrupt(), 130, "interrupted"), (MemoryError(), 1, "memory")]
)
def test_interrupts_and_memory_errors_have_their_exit_codes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, word: str
) -> None:
    import gpt_export.cli.publish

    def breaks(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(gpt_export.cli.publish, "read_source", breaks)
    cli("onnx").refused(code, word)


def test_progress_is_shown_on_a_terminal_at_once_and_in_words(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [GPT_EXPORT, "onnx", TINY, "--output", str(tmp_path / "tiny"), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(theirs)
    screen = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the terminal was closed
            break
        if not chunk:
            break
        screen += chunk
    out = run.communicate(timeout=120)[0]
    os.close(ours)
    assert run.returncode == 0
    assert json.loads(out)["manifest"]["parity"]["passed"] is True
    text = screen.decode("utf-8", "replace")
    for stage in ("loading PyTorch", "writing fp32", "comparing fp32 with PyTorch", "publishing", "done after"):
        assert stage in text
    assert re.search(r"0:00:0\d", text)


def test_validate_rebuilds_the_source_from_the_manifest(cli: Cli, artifact_124m: Path) -> None:
    run = cli("validate", artifact_124m, "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert report["passed"] is True
    assert set(report["targets"]) == {"onnx", "torchscript"}
    assert report["weights"]["checked"] == 3


def test_validate_names_what_is_no_onnx_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no model", encoding="utf-8")
    cli("validate", tmp_path / "README.md").refused(1, "README.md is no ONNX file", "name an artifact folder")
    cli("validate", tmp_path / "none.onnx").refused(1, "none.onnx does not exist")


@pytest.mark.parametrize("columns", [80, 100])
def test_a_report_fits_and_leads_with_its_verdicts(
    columns: int, cli: Cli, tiny_original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))  # in a pipe as well
    brief = cli("validate", tiny_original, "--against", TINY).out
    whole = cli("validate", tiny_original, "--against", TINY, "--verbose").out
    brief, whole = (re.sub(r"\x1b\[[0-9;]*m", "", out) for out in (brief, whole))
    for out in (brief, whole):
        assert max(map(len, out.splitlines())) <= columns
        assert out.startswith("PASSED  ")
        assert "\npassed  fp32: " in out
    assert brief.count("\nok ") == 2  # the worst case of either file
    assert whole.count("\nok ") > 20


def test_validate_asks_for_a_source_that_the_manifest_cannot_rebuild(cli: Cli, tiny: Path) -> None:
    cli("validate", tiny).refused(2, "cannot rebuild", "name it with --against")


def test_validate_compares_with_the_source_that_is_named(cli: Cli, tiny: Path) -> None:
    run = cli("validate", tiny, "--against", TINY)
    assert run.code == 0, run.err
    assert "passed" in run.out.lower()
    assert str(tiny) in run.out
    cli("validate", tiny, "--against", "tests.samples:other_dummy").refused(3, "not the model")


def test_validate_refuses_a_source_of_other_sizes(cli: Cli, tiny: Path) -> None:
    cli("validate", tiny, "--against", "dummy-124m").refused(1, "vocab_size 29", "dummy-124m has 50257")


def test_validating_never_changes_the_artifact(cli: Cli, tiny: Path) -> None:
    before = tree(tiny)
    cli("validate", tiny, "--against", TINY)
    assert tree(tiny) == before


def test_inspect_tells_signature_opset_operators_sizes_and_hashes(cli: Cli, artifact_124m: Path) -> None:
    run = cli("inspect", artifact_124m, "--json")
    found = run.json()
    graph = found["graphs"]["fp32"]
    assert graph["opsets"] == {"ai.onnx": 18}
    assert graph["inputs"] == [{"name": "input_ids", "dtype": "int64", "dims": ["batch_size", "sequence_length"]}]
    assert graph["operators"]["Gather"] >= 2
    assert graph["weights"]["count"] >= 3
    assert graph["weights"]["external"] == ["model.onnx_data"]
    assert found["files"] == json.loads((artifact_124m / "manifest.json").read_text())["files"]
    text = cli("inspect", artifact_124m).out
    for word in ("opset ai.onnx 18", "input_ids: int64 [batch_size, sequence_length]", "Gather", "model.onnx_data"):
        assert word in text


def test_inspect_reads_any_onnx_file(cli: Cli, tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, "n"]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), tmp_path / "relu.onnx")
    found = cli("inspect", tmp_path / "relu.onnx", "--json").json()["graphs"]["relu.onnx"]
    assert found["operators"] == {"Relu": 1}
    assert found["opsets"] == {"ai.onnx": 13}
    assert found["inputs"] == [{"name": "x", "dtype": "float", "dims": [1, "n"]}]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 100, b"PK\x03\x04"])
def test_inspect_refuses_what_is_not_onnx(cli: Cli, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    cli("inspect", tmp_path / "x.onnx").refused(1, "x.onnx is not an ONNX model")


def test_shell_completion_is_there(run_command: Cli) -> None:
    run = run_command(env={"_GPT_EXPORT_COMPLETE": "bash_source"})
    assert run.code == 0
    assert "_gpt_export_completion" in run.out
    listed = run_command(
        env={"_GPT_EXPORT_COMPLETE": "bash_complete", "COMP_WORDS": "gpt-export in", "COMP_CWORD": "1"}
    )
    assert "inspect" in listed.out


def test_a_reader_that_leaves_early_ends_the_command_without_a_traceback(tiny: Path) -> None:
    run = subprocess.run(
        f"'{GPT_EXPORT}' inspect '{tiny}' --json | head -c 1", shell=True, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in run.stderr


def test_a_failing_report_says_each_thing_once(cli: Cli, tiny: Path) -> None:
    told = ("validate", tiny, "--against", "tests.samples:other_dummy")
    run, whole = cli(*told), cli(*told, "--verbose")
    assert run.code == whole.code == 3
    lines = run.out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("FAILED ") and not line.startswith("FAILED  "))
    assert first < next(i for i, line in enumerate(lines) if " cases failed, " in line)
    assert re.search(r"^and \d+ more; --verbose shows every case$", run.out, re.MULTILINE)
    assert len(lines) < 20 < len(whole.out.splitlines())


def test_lines_in_a_pipe_are_whole_unless_columns_are_said(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = {command: cli(*command).out for command in (("inspect", tiny), ("validate", tiny, "--against", TINY))}
    monkeypatch.setenv("COLUMNS", "60")
    for command, text in whole.items():
        narrow = cli(*command).out
        assert " ".join(narrow.split()) == " ".join(text.split()) or command[0] == "validate"
        assert len(narrow.splitlines()) > len(text.splitlines())


@pytest.mark.parametrize("command", ["onnx", "torchscript"])
def test_an_output_that_is_there_is_refused_before_anything_is_loaded(command: str, cli: Cli, tiny: Path) -> None:
    run = cli(command, TINY, "--output", tiny)
    run.refused(1, "exists; replace it with --force")
    assert "loading PyTorch" not in run.err


def test_usage_is_told_once_where_json_is_asked_for(cli: Cli) -> None:
    run = cli("generate", "artifact", "--interactive", "--json")
    assert run.code == 2
    assert run.json()["error"]["message"].startswith("--interactive goes on from one prompt at most")
    assert run.err == ""
