"""Children of the tests can be interrupted however the tests were started."""

from __future__ import annotations

import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal, subprocess, sys
from tests.signals import let_children_be_interrupted
if sys.argv[1] == "yes":
    let_children_be_interrupted()
code = "import sys; print(flush=True); sys.stdin.read()"
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", code], **pipes)
child.stdout.read(1)
child.send_signal(signal.SIGINT)
os.kill(os.getpid(), signal.SIGINT)
try:
    print("ended by", -child.wait(timeout=5))
except subprocess.TimeoutExpired:
    child.stdin.close()
    print("ended by", child.wait())
"""


@pytest.mark.parametrize(("asked", "ended"), [("yes", "ended by 2"), ("no", "ended by 0")])
def test_children_are_interrupted_where_sigint_is_ignored_if_they_shall_be(asked: str, ended: str) -> None:
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    run = subprocess.run(
        [*ignoring, sys.executable, "-c", INTERRUPTED, asked], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ended
