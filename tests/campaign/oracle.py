"""What an input must not do, and whether it did; runs in a forked child, a command line in this process."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tests.campaign.case import Case
from tests.campaign.kinds import KINDS
from tests.campaign.mutations.pickles import CANARY

MOST_SECONDS = 5.0
"""Of the processor, an export aside: on a machine that is shared the clock would tell of the others."""
EXPORT_SECONDS = 60.0
MOST_MB = 1000.0
EXIT_CODES = (0, 1, 2, 3)
SAFE_WRITES = ("/dev/null", "/dev/tty")
RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")


@dataclass(slots=True)
class Outcome:
    """What one input came to; `bad` is empty if that is what is promised."""

    code: int | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
    bad: str = ""
    told: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Watch:
    """What this process has opened for writing or started since `begin`, by Python's audit events."""

    def __init__(self) -> None:
        self.inside = ""
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def begin(self, inside: Path) -> None:
        """Writes below `inside` are nobody's business."""
        self.inside, self.seen = os.path.realpath(inside), []

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.inside:
            return
        if event in RUNS_CODE:
            self.seen.append(f"ran {event}")
        elif event == "open" and isinstance(args[0], str | bytes):
            flags = args[2] if isinstance(args[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._written(os.fsdecode(args[0]))
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
            target = args[1] if event in ("os.rename", "os.link", "os.symlink") else args[0]
            if isinstance(target, str | bytes) and os.fsdecode(target).startswith(os.sep):
                self._written(os.fsdecode(target))

    def _written(self, path: str) -> None:
        full = os.path.abspath(path)  # noqa: PTH100 - inside an audit hook, without resolving
        if not full.startswith((self.inside, "/proc/self/")) and full not in SAFE_WRITES:
            self.seen.append(f"wrote {full}")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path))
def read(source: Path, config: Path | None) -> None:
    """Reads SOURCE as an export does, every weight of it, and its tokenizer."""
    from gpt_export.sources.names import read_source

    found = read_source(str(source), config_file=config)
    for tensor in found.weights.values():
        tensor.float().sum()
    if found.tokenizer is not None:
        found.tokenizer.decode(list(found.tokenizer.encode("a text"))[: found.context_length])


def group() -> Any:
    """The command line, and `read` beside its commands."""
    from gpt_export.cli import cli
    from gpt_export.cli.errors import ErrorHandlingGroup

    return ErrorHandlingGroup(name="gpt-export", commands=dict(cli.commands) | {"read": read})


@contextlib.contextmanager
def silenced() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What is printed meanwhile: stdout and stderr of Python."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def run(argv: list[str]) -> tuple[int, str]:
    """Exit code and what was printed, of a command in this process."""
    with silenced() as (out, err):
        try:
            group().main(argv, prog_name="gpt-export")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    return code, out.getvalue() + err.getvalue()


def mutate(case: Case, folder: Path) -> None:
    """Applies the mutations one after the other; what finds nothing to change any more changes nothing."""
    ops = KINDS[case.kind].ops
    for one in case.mutations:
        # A file that is broken already cannot be taken apart again; what is there of it is the input.
        with contextlib.suppress(Exception):
            ops[one.op](folder, one.at, one.what)


def judge(case: Case, seeds: Path, home: Path, watch: Watch) -> Outcome:
    """The outcome of one input, in a folder of its own that is removed again."""
    kind = KINDS[case.kind]
    shutil.rmtree(home, ignore_errors=True)
    folder, out, scratch = (home / name for name in ("in", "out", "tmp"))
    shutil.copytree(seeds / kind.seed, folder)
    out.mkdir()
    scratch.mkdir()
    mutate(case, folder)
    before = listing(folder)
    os.environ["TMPDIR"], tempfile.tempdir = str(scratch), None
    os.chdir(scratch)
    _limit(EXPORT_SECONDS if kind.exports else MOST_SECONDS)
    base = _reset_peak()
    watch.begin(home)
    begun = time.process_time()
    outcome = _command(case, folder, out) if kind.name != "request" else _request(folder)
    outcome.seconds = time.process_time() - begun
    watch.inside = ""
    outcome.peak_mb = max(0.0, _peak_mb() - base)
    _limit(0)
    faults = [outcome.bad, *watch.seen, *_left(home, folder, out, before, outcome)]
    if outcome.peak_mb > MOST_MB:
        faults.append("memory")
    outcome.bad = next((fault for fault in faults if fault), "")
    shutil.rmtree(home, ignore_errors=True)
    return outcome


def _command(case: Case, folder: Path, out: Path) -> Outcome:
    code, said = run(KINDS[case.kind].actions[case.action](folder, out))
    told = next((line for line in said.splitlines()[::-1] if line.startswith(("Error", "Usage"))), "")
    bad = said_badly(code, said)
    return Outcome(code, told=told, bad=bad)


def said_badly(code: int, said: str) -> str:
    """What is wrong with an exit code and what was printed; empty if nothing is."""
    if "Traceback (most recent call last)" in said:
        return "traceback"
    if "run again with --debug and report what it shows" in said:
        return "unexpected"
    if code not in EXIT_CODES:
        return f"exit code {code}"
    if code and "Error" not in said:
        # A lint that finds something exits with 1, and says what it is in its own way.
        return "" if "GX" in said else "failed without a word"
    return ""


def _request(folder: Path) -> Outcome:
    from tests.campaign.served import ask

    return Outcome(0, bad=ask((folder / "request").read_bytes()))


def _left(home: Path, folder: Path, out: Path, before: Mapping[str, int], outcome: Outcome) -> Iterator[str]:
    if (home / "tmp" / CANARY).exists() or (folder / CANARY).exists():
        yield "code ran"
    if {path.name for path in home.iterdir()} - {"in", "out", "tmp"}:
        yield "wrote beside its folders"
    if listing(folder) != before:
        yield "changed its input"
    names = {path.name for path in out.iterdir()}
    if names - {"x"}:
        yield "left something beside the output"
    if outcome.code and names:
        yield "an output of a run that failed"
    if (out / "x" / "manifest.json").exists():
        from gpt_export.artifact.reading import Artifact
        from gpt_export.errors import ArtifactError

        try:
            Artifact.open(out / "x").verify()
        except ArtifactError:
            yield "a half artifact"


def listing(folder: Path) -> dict[str, int]:
    """Every path below `folder` and its size; links are not followed."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def _limit(seconds: float) -> None:
    """After so much time of the processor the system ends this process, whatever it is doing."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(more_mb: float) -> None:
    """No more than this beyond what is mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = mapped + int(more_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return 0.0
