"""Export, gate and runtime on the oldest and newest releases that pyproject.toml allows, an environment each.

`python -m benches.versions [--only torch] [--keep FOLDER]` writes benches/results/versions.json; what was not run stays
in it as it was. An environment takes up to 8 GB, and is removed before the next one is made unless it is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.record import read_record, write_record
from benches.versions.plan import PACKAGES, ROOT, Trial, plan, requirements

TRIAL = Path(__file__).with_name("trial.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PACKAGES, action="append", help="one package; repeatable")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep environments here, and use those that are")
    options = parser.parse_args()
    rows = {(row["package"], row["end"]): row for row in (read_record("versions") or {"trials": []})["trials"]}
    with tempfile.TemporaryDirectory(prefix="gpt-export-versions-") as scratch:
        ours = Path(scratch) / "ours"  # as it stands now: a run takes long, and somebody may work on it meanwhile
        for package in ("exporter/gpt_export", "models/gpt_export_models"):
            shutil.copytree(ROOT / package, ours / Path(package).name)
        for trial in plan():
            if options.only and trial.package not in options.only:
                continue
            print(f"{trial.name}: {', '.join(trial.requirements)}", file=sys.stderr)
            rows[trial.package, trial.end] = tried(trial, ours, options.keep)
            print(json.dumps(rows[trial.package, trial.end]), file=sys.stderr)
            write_record("versions", {"trials": [row for _, row in sorted(rows.items(), key=_order)]})


def tried(trial: Trial, ours: Path, keep: Path | None) -> dict[str, Any]:
    """The record's row of a trial of the packages in `ours`: versions and outcomes, or why there is no environment."""
    row: dict[str, Any] = {"package": trial.package, "end": trial.end, "requirements": list(trial.requirements)}
    with tempfile.TemporaryDirectory(prefix="gpt-export-versions-") as scratch:
        folder = (keep or Path(scratch)) / trial.name
        if not (folder / "complete").exists():
            if failure := _make(folder, trial.requirements):
                return row | {"failure": failure}
            (folder / "complete").touch()
        done = subprocess.run(
            [folder / "bin" / "python", TRIAL],
            env=os.environ | {"PYTHONPATH": str(ours)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return row | {"failure": done.stderr.strip().splitlines()[-1]}
        return row | json.loads(done.stdout.splitlines()[-1])


def _make(folder: Path, wanted: Sequence[str]) -> str | None:
    """Makes the environment, of `wanted` and whatever else gpt-export requires; gives pip's last word if it cannot."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    stated = [f"{package}{bounds}" for package, bounds in requirements().items()]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # else pip sees ours there
    done = subprocess.run(
        [*command, "install", "--quiet", *wanted, *stated], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (lines or done.stderr.splitlines())[-1].removeprefix("ERROR: ")


def _order(item: tuple[tuple[str, str], Any]) -> tuple[int, bool]:
    (package, end), _ = item
    return PACKAGES.index(package), end == "newest"


if __name__ == "__main__":
    main()
