"""What a killed command leaves running: nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gpt_export.cli import errors

SLOW_BENCH = """
import sys
from gpt_export.bench.plan import BenchConfig
from gpt_export.bench.run import benchmark
print("begun", flush=True)
benchmark(sys.argv[1], (), BenchConfig(repeats=100000, threads=1), bandwidth_bytes=2**20)
"""
CHILD = """
import sys, time
from gpt_export.lifeline import end_with_parent
print(sys.stdin.readline().strip(), flush=True)
end_with_parent()
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
from gpt_export.lifeline import lifeline
with lifeline("asked") as stdin:
    subprocess.run([sys.executable, "-c", {CHILD!r}], stdin=stdin)
"""


def ends_when_killed(*command: str, begun: int) -> None:
    """Kills the command when its children have printed `begun` lines, and waits until nobody holds its stdout."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(begun):
        assert process.stdout.readline()
    process.kill()
    process.communicate(timeout=20)  # its end of file comes when the last process that has it is gone
    assert process.returncode == -signal.SIGKILL


def test_a_child_reads_its_line_and_ends_with_its_parent() -> None:
    ends_when_killed("-c", PARENT, begun=1)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds children in /proc; the pipe is tested above")
def test_killing_bench_ends_the_process_that_measures(byte_original: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_BENCH, str(byte_original)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    while not (found := children(process.pid)):
        assert process.poll() is None
    watched = [os.pidfd_open(pid) for pid in found]
    process.kill()
    process.wait()
    for descriptor in watched:
        readable, _, _ = select.select([descriptor], [], [], 20)
        os.close(descriptor)
        assert readable


def test_nohup_still_means_that_the_terminals_end_is_not_the_commands() -> None:
    before = {name: signal.getsignal(getattr(signal, name)) for name in errors.ENDING}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        errors._terminate_cleanly()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        stop = signal.getsignal(signal.SIGTERM)
        assert callable(stop)
        with pytest.raises(SystemExit) as caught:
            stop(signal.SIGTERM, None)
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # asked twice, it goes on removing what it staged
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
