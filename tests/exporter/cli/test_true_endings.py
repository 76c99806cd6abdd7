"""What a command says at its end is what happened: also where nobody takes what it prints."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from gpt_export.cli.errors import ErrorHandlingGroup, RunOptions, run_options

from tests.conftest import GPT_EXPORT, Run


def into(place: str, *args: object, stderr: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command with its standard output at a place."""
    with Path(place).open("w") as out:
        errors = subprocess.PIPE if stderr is None else Path(stderr).open("w")  # noqa: SIM115
        return subprocess.run(
            [GPT_EXPORT, *map(str, args)], stdout=out, stderr=errors, text=True, check=False, timeout=120
        )


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_standard_output_is_one_sentence(tiny_original: Path, options: tuple[str, ...]) -> None:
    done = into("/dev/full", "inspect", tiny_original, *options)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output: No space left on device\n"


def test_where_nothing_can_be_said_the_exit_code_stands(tiny_original: Path) -> None:
    assert into("/dev/full", "inspect", tiny_original, stderr="/dev/full").returncode == 1


def test_a_package_that_could_not_be_told_of_is_said_to_be_there(tiny_original: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.tar"
    done = into("/dev/full", "package", tiny_original, "--target", "archive", "--output", target)
    assert done.returncode == 1
    assert target.is_file()
    assert done.stderr.endswith(f"Error: standard output: No space left on device; {target} was published before\n")


def publishing(target: Path, *, at_first: Callable[[], None], then: Callable[[], None]) -> Run:
    """A command that publishes at `target` in between."""

    @click.command()
    @run_options
    def publish() -> None:
        run = click.get_current_context().ensure_object(RunOptions)
        run.publishes = True
        run.watch(target)
        at_first()
        target.mkdir()
        then()

    group = ErrorHandlingGroup(commands={"publish": publish})
    with pytest.raises(SystemExit) as caught:
        group.main(["publish"])
    return Run(int(caught.value.code or 0), "", "")


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def nothing() -> None: ...


@pytest.mark.parametrize("failure", [full, lambda: (_ for _ in ()).throw(KeyboardInterrupt)])
def test_the_consequence_is_what_lies_at_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: Callable[[], None]
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def fail() -> None:
        for _ in failure() or ():
            pass

    target = tmp_path / "out"
    publishing(target, at_first=fail, then=nothing)
    assert capsys.readouterr().err.endswith("; nothing was published\n")
    publishing(target, at_first=nothing, then=fail)
    assert capsys.readouterr().err.endswith(f"; {target} was published before\n")


def test_a_page_at_a_device_is_refused_before_the_work(cli: Callable[..., Run], tmp_path: Path) -> None:
    run = cli("onnx", "--html", "/dev/full", "--output", tmp_path / "out")
    assert run.code == 2
    assert "/dev/full is a pipe or a device; name a file" in run.err
    assert not (tmp_path / "out").exists()
