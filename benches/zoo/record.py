"""Writes benches/results/zoo.json: what every column made of every animal, and of every family of transformers.

`python -m benches.zoo.record [--only PART ...] [--columns NAME ...] [--families]`; what is not run again is kept.
Each animal is tried in a process of its own, so that one that crashes, hangs or leaves something behind is one row.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benches.record import read_record, write_record
from benches.zoo.columns import COLUMNS, Made
from tests.zoo import Animal, animals
from tests.zoo.families import family_animals

NAME = "zoo"
SLOW_TO_IMPORT = ("onnxscript", "torch._dynamo", "torch.onnx._internal.exporter._core", "gpt_export.pipeline.stages")
"""Modules that every column loads: once here, and not again in every fork."""
PATIENCE_S = 300
"""An animal that takes longer for one column is recorded as refused by it."""


def main() -> None:
    """Runs what the command line asks for, row after row, and writes after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="animals whose target has a part")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS), metavar="NAME")
    parser.add_argument("--families", action="store_true", help="families of transformers in place of the zoo")
    parser.add_argument("--missing", action="store_true", help="what is not recorded yet, alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module in SLOW_TO_IMPORT:
        importlib.import_module(module)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    section = "families" if options.families else "animals"
    chosen = family_animals() if options.families else animals()
    for animal in chosen:
        if options.only and not any(part in animal.target for part in options.only):
            continue
        recorded = (read_record(NAME) or {}).get(section, {}).get(animal.name, {})
        names = [name for name in options.columns if not (options.missing and name in recorded)]
        if not names:
            continue
        row = {**_facts(animal), **_tried(animal, names)}
        _keep(section, animal.name, row)
        print(f"{animal.name:32}", *(f"{name}: {row[name]['outcome']}" for name in names), flush=True)


def _facts(animal: Animal) -> dict[str, Any]:
    return {"kind": animal.kind, "exports": animal.exports, "cached": animal.cached}


def _tried(animal: Animal, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {name: _apart(animal, name).to_dict() for name in names}


def _apart(animal: Animal, name: str) -> Made:
    """The column's answer from a forked process that is ended if it takes too long."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, name, animal))
    started = time.monotonic()
    child.start()
    theirs.close()
    made = Made(outcome="refused", why="the process ended")
    if ours.poll(PATIENCE_S):
        try:
            made = ours.recv()
        except EOFError:
            made = Made(outcome="refused", why=f"the process ended after {time.monotonic() - started:.0f} s")
    else:
        made = Made(outcome="refused", why=f"took more than {PATIENCE_S} s")
        child.kill()
    child.join()
    return made


def _answer(pipe: Connection, name: str, animal: Animal) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        pipe.send(COLUMNS[name](animal, Path(folder)))


def _keep(section: str, name: str, row: Mapping[str, Any]) -> None:
    """Puts `row` beside what is recorded of the animal; runs of several columns may write at once."""
    with (Path(tempfile.gettempdir()) / "gpt-export-zoo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = read_record(NAME) or {}
        sections = {each: dict(record.get(each, {})) for each in ("animals", "families")}
        sections[section][name] = {**sections[section].get(name, {}), **row}
        write_record(NAME, sections)


if __name__ == "__main__":
    main()
