"""What happens to processes: kills at any event or moment, disks that are full, crowds, and outputs that nobody reads.

Each runs a whole command in a forked child; a hook counts what Python tells the system of files, and kills the process
at the event that the seed says.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.oracle import Outcome, said_badly

SHARES = {"kill": 0.15, "disk": 0.05, "crowd": 0.01, "stdout": 0.04}
"""So many in a round of each kind, of what there are of other inputs."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
EVENTS = (
    "open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.chmod", "os.truncate", "ctypes.dlsym",
    "shutil.rmtree", "shutil.copyfile", "tempfile.mkdtemp", "fcntl.flock", "os.listdir", "os.scandir",
)  # fmt: skip
LONGEST_SECONDS = 120.0
SAID_BYTES = 1 << 20
FAST = ("--gate", "off", "--no-cache")
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "package genai": lambda seeds, out: [
        "package",
        str(seeds / "artifact"),
        "--target",
        "genai",
        "--output",
        str(out / "x"),
    ],
    "package triton": lambda seeds, out: [
        "package",
        str(seeds / "artifact"),
        "--target",
        "triton",
        "--output",
        str(out / "x"),
    ],
    "package archive": lambda seeds, out: [
        "package",
        str(seeds / "artifact"),
        "--target",
        "archive",
        "--output",
        str(out / "x"),
    ],
    "onnx": lambda seeds, out: ["onnx", str(seeds / "gpt2"), "--output", str(out / "x"), *FAST],
    "onnx --force": lambda seeds, out: ["onnx", str(seeds / "gpt2"), "--output", str(out / "x"), *FAST, "--force"],
    "torchscript": lambda seeds, out: ["torchscript", str(seeds / "gpt2"), "--output", str(out / "x"), "--gate", "off"],
    "quantize": lambda seeds, out: [
        "quantize",
        str(seeds / "artifact"),
        "--precision",
        "int8",
        "--gate",
        "off",
        "--output",
        str(out / "x"),
    ],
    "lint --sarif": lambda seeds, out: ["lint", str(seeds / "artifact"), "--sarif", str(out / "x")],
}
LOOKING: dict[str, Callable[[Path, Path], list[str]]] = {
    "inspect": lambda seeds, _: ["inspect", str(seeds / "artifact")],
    "inspect --json": lambda seeds, _: ["inspect", str(seeds / "artifact"), "--json"],
    "lint": lambda seeds, _: ["lint", str(seeds / "artifact")],
    "lint --json": lambda seeds, _: ["lint", str(seeds / "artifact"), "--json"],
    "generate": lambda seeds, _: ["generate", str(seeds / "artifact"), "a", "--max-new-tokens", "4", "--threads", "1"],
    "doctor": lambda *_: ["doctor"],
    "help": lambda *_: ["--help"],
    "usage": lambda *_: ["onnx", "--no-such-option"],
}
FAST_ONES = ("package genai", "package triton", "package archive", "lint --sarif")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a child before its command begins, and after."""

    prepare: Callable[[], None] = lambda: None
    kill_after: float | None = None
    number: int = signal.SIGKILL


def outcome(kind: str, seed: int, number: int, seeds: Path, home: Path) -> Outcome:
    """What one fault came to, in a folder of its own."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    shutil.rmtree(home, ignore_errors=True)
    (home / "out").mkdir(parents=True)
    begun = time.monotonic()
    code, bad, told = _KINDS[kind](rng, seeds, home)
    shutil.rmtree(home, ignore_errors=True)
    return Outcome(code, seconds=time.monotonic() - begun, bad=bad, told=told)


def _command(rng: random.Random) -> str:
    return rng.choice(FAST_ONES) if rng.random() < 0.8 else rng.choice(list(COMMANDS))


def _kill(rng: random.Random, seeds: Path, home: Path) -> tuple[int | None, str, str]:
    name, number = _command(rng), rng.choice(SIGNALS)
    argv, out = COMMANDS[name](seeds, home / "out"), home / "out"
    if "--force" in argv:
        shutil.copytree(seeds / "artifact", out / "x")
    if rng.random() < 0.7:
        event = int(rng.random() ** 2 * (150 if name in FAST_ONES else 3000))
        fault, how = Fault(lambda: _kill_at(event, number)), f"{number.name} at event {event}"
    else:
        seconds = rng.random() * (0.3 if name in FAST_ONES else 4)
        fault, how = Fault(kill_after=seconds, number=number), f"{number.name} after {seconds:.3f} s"
    told = f"{name}, {how}"
    code, said = _run(argv, home, fault)
    if code == -signal.SIGALRM:
        return code, "hung", told
    if "Traceback" in said:
        return code, "traceback", f"{told}: {said[-300:]}"
    left = {path.name for path in out.iterdir()} - {"x"}
    if left and number != signal.SIGKILL:
        return code, "a polite kill left its folder", f"{told}: {sorted(left)}"
    fault_left = _half(out / "x")
    if fault_left:
        return code, fault_left, told
    if left or rng.random() < 0.1:
        fresh = not (out / "x").exists()
        if "--force" not in argv and not fresh:
            return code, "", told
        again, said = _run(argv, home, Fault())
        if again:
            return again, "the next run failed", f"{told}: {said[-300:]}"
        if {path.name for path in out.iterdir()} != {"x"}:
            return again, "the next run did not clear up", told
    return code, "", told


def _disk(rng: random.Random, seeds: Path, home: Path) -> tuple[int | None, str, str]:
    name = _command(rng)
    most = int(rng.random() ** 3 * 200_000)
    told = f"{name}, files of at most {most} bytes"
    limit = Fault(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    code, said = _run(COMMANDS[name](seeds, home / "out"), home, limit)
    bad = "hung" if code == -signal.SIGALRM else said_badly(code, said) or _half(home / "out" / "x")
    if not bad and code and any((home / "out").iterdir()):
        bad = "an output of a run that failed"
    return code, bad, f"{told}: {said[-300:]}"


def _crowd(rng: random.Random, seeds: Path, home: Path) -> tuple[int | None, str, str]:
    name, count = _command(rng), rng.randint(2, 8)
    argv, out = COMMANDS[name](seeds, home / "out"), home / "out"
    children = [_start(argv, home / f"run{i}", Fault()) for i in range(count)]
    ended = [child.wait(Fault()) for child in children]
    codes, said = [code for code, _ in ended], "".join(text for _, text in ended)
    told = f"{name} by {count}: {codes}"
    bad = _half(out / "x")
    if "Traceback" in said or "report what it shows" in said:
        bad = "traceback"
    elif {path.name for path in out.iterdir()} != {"x"}:
        bad = "something beside the output"
    elif name not in ("onnx --force", "lint --sarif") and codes.count(0) != 1:
        bad = "not one of them published"
    return 0, bad, f"{told}: {said[-300:]}" if bad else told


def _stdout(rng: random.Random, seeds: Path, home: Path) -> tuple[int | None, str, str]:
    everything = LOOKING if rng.random() < 0.8 else COMMANDS
    name = rng.choice(list(everything))
    how = rng.choice(["closed", "full", "ended"])
    code, said = _run(everything[name](seeds, home / "out"), home, Fault(lambda: _spoil(how)), own_stdout=True)
    told = f"{name}, stdout {how}"
    published = (home / "out" / "x").exists()
    bad = "hung" if code == -signal.SIGALRM else ""
    if "Traceback" in said or "report what it shows" in said or "Exception ignored" in said:
        bad = "traceback"
    elif code not in (0, 1, 2, 120):
        bad = f"exit code {code}"
    elif published and "nothing was published" in said:
        bad = "published, and says that it did not"
    return code, bad or _half(home / "out" / "x"), f"{told}: {said[-300:]}"


_KINDS: dict[str, Callable[[random.Random, Path, Path], tuple[int | None, str, str]]] = {
    "kill": _kill,
    "disk": _disk,
    "crowd": _crowd,
    "stdout": _stdout,
}


def _half(path: Path) -> str:
    """What is wrong with what stands at the output; empty if it is whole or not there."""
    from gpt_export.artifact.reading import Artifact
    from gpt_export.errors import ArtifactError

    try:
        if path.is_dir() and (path / "manifest.json").exists():
            Artifact.open(path).verify()
        elif path.is_dir():
            # A repository for Triton is a folder of models; one that is being written is hidden until it is whole.
            seen = [one for one in path.rglob("*") if not _hidden(one.relative_to(path))]
            return "a half artifact" if seen and not any(one.suffix == ".onnx" for one in seen) else ""
        elif path.is_file() and path.read_bytes()[:1] == b"{":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.is_file():
            with tarfile.open(path) as archive:
                names = archive.getnames()
            if not any(name.endswith("SHA256SUMS") for name in names):
                return "a half artifact"
    except (ArtifactError, ValueError, tarfile.TarError, OSError):
        return "a half artifact"
    return ""


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kill_at(event: int, number: int) -> None:
    """The signal at the so-manieth event of files, wherever Python is."""
    seen = [0]

    def hear(name: str, args: Any) -> None:
        del args
        if name in EVENTS:
            seen[0] += 1
            if seen[0] == event:
                os.kill(os.getpid(), number)

    sys.addaudithook(hear)


def _spoil(how: str) -> None:
    """Makes file descriptor 1 one that nothing can be written to."""
    if how == "closed":
        os.close(1)
        sys.stdout = None  # type: ignore[assignment] # as the interpreter has it that starts so
        return
    if how == "full":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, target = os.pipe()
        os.close(reading)
    os.dup2(target, 1)
    sys.stdout = os.fdopen(1, "w", closefd=False)


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs a command, and a pipe with what it says."""

    pid: int
    reading: int

    def wait(self, fault: Fault) -> tuple[int, str]:
        """Its exit code, negative for a signal, and what it said; kills it on the way if that is the fault."""
        if fault.kill_after is not None:
            time.sleep(fault.kill_after)
            os.kill(self.pid, fault.number)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.set_blocking(self.reading, False)
        try:
            said = os.read(self.reading, SAID_BYTES)
        except BlockingIOError:  # nothing, while a process of the child's own still holds the pipe
            said = b""
        os.close(self.reading)
        return code, said.decode("utf-8", "replace")


def _run(argv: Sequence[str], home: Path, fault: Fault, *, own_stdout: bool = False) -> tuple[int, str]:
    return _start(argv, home, fault, own_stdout=own_stdout).wait(fault)


def _start(argv: Sequence[str], home: Path, fault: Fault, *, own_stdout: bool = False) -> Child:
    """A child that runs the command. What it says goes through a pipe, which no limit of files is about."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SAID_BYTES)
    child = os.fork()
    if child:
        os.close(writing)
        return Child(child, reading)
    code = 1
    try:
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"], tempfile.tempdir = str(home / "tmp"), None
        os.chdir(home / "tmp")
        os.dup2(writing, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        if not own_stdout:
            os.dup2(writing, 1)
            sys.stdout = os.fdopen(1, "w", closefd=False)
        signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
        code = _as_a_process(argv, fault)
    finally:
        os._exit(code)


def _as_a_process(argv: Sequence[str], fault: Fault) -> int:
    from gpt_export.cli import main

    fault.prepare()
    sys.argv = ["gpt-export", *argv]
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        code = code or 120  # as the interpreter ends when the last flush fails
    return code
