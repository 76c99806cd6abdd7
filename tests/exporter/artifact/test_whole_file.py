"""A file that the user named appears whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from gpt_export.artifact.staging import write_whole

from tests.conftest import GPT_EXPORT, Run


def test_it_replaces_what_is_there_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, "ä")
    path.chmod(0o640)
    write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "text")
    assert os.read(reading, 9) == b"text"
    os.close(reading)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, tiny: Path) -> None:
    sarif = tmp_path / "found.sarif"
    sarif.write_text("old")
    done = subprocess.run(
        [GPT_EXPORT, "lint", str(tiny), "--sarif", str(sarif)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    Run(done.returncode, done.stdout, done.stderr).refused(1, "found.sarif cannot be written", "--sarif")
    assert sarif.read_text() == "old"
    assert not list(tmp_path.glob(".found*"))


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_stream_is_no_failure(number: int, tiny: Path) -> None:
    script = f'exec {number}>&-; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", GPT_EXPORT, "inspect", str(tiny)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    occupied = "from gpt_export.cli.streams import occupy_streams; occupy_streams()"
    code = f"import os, sys; {occupied}; sys.stderr.write(str(os.open('/', 0)))"
    closing = ["sh", "-c", 'exec 0<&- 1>&-; exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(closing, stderr=subprocess.PIPE, text=True, check=True)
    assert int(done.stderr) > 2
