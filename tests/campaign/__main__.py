"""`python -m tests.campaign`: inputs by kind and faults of processes, until the time is over; `make campaign`.

The same seed tries the same inputs in the same order. A run that was ended goes on with `--resume`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.record import RESULTS, write_record
from tests.campaign import faults, forks
from tests.campaign.case import Case, draw
from tests.campaign.kinds import KINDS, Kind
from tests.campaign.oracle import Outcome
from tests.campaign.record import Record
from tests.campaign.seeds import make_seeds
from tests.campaign.shrink import fault_name, keep, shrunk

CASES = Path(__file__).parent / "cases"
CACHE = Path(__file__).parents[2] / "benches" / ".cache" / "campaign"
ROUND = 400
MOST_FAULTS = 20
"""Of one kind that are shrunk and kept in a run; more of them are counted."""


class Campaign:
    """Where everything of one run lies, and what it has found so far."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        options.cache.mkdir(parents=True, exist_ok=True)
        self.record = Record(options.cache / "record.json", options.seed, resume=options.resume)
        self.seeds = make_seeds(options.cache / "seeds")
        self.work, self.found, self.options = work, options.cache / "found", options
        self.names: set[str] = {path.stem for path in self.found.glob("*.json")} if options.resume else set()
        self.end = time.monotonic() + 60 * options.minutes
        forks.prepare(self.seeds)

    def replay(self, folder: Path) -> None:
        """Tries every case of a folder, each a fault that was mended."""
        cases = [Case.read(path) for path in sorted(folder.glob("*.json"))]
        for case, outcome in forks.outcomes(cases, self.work / "home"):
            self.record["cases"].add(outcome)
            if outcome.bad:
                self._tell(fault_name(case, outcome), outcome)

    def inputs(self, kind: Kind) -> None:
        """A round of one kind's inputs."""
        tally = self.record[kind.name]
        count = max(1, int(self.options.round / kind.cost))
        numbers = range(tally.tried, tally.tried + count)
        cases = [draw(kind.name, list(kind.ops), len(kind.actions), self.options.seed, i) for i in numbers]
        bad = []
        for case, outcome in forks.outcomes(cases, self.work / "home"):
            tally.add(outcome)
            if outcome.bad:
                bad.append((case, outcome))
        for case, outcome in bad:
            self._examine(case, outcome)
        self.record.save()

    def faults(self, kind: str) -> None:
        """A round of one kind of fault."""
        tally = self.record[kind]
        count = max(1, int(self.options.round * faults.SHARES[kind]))
        for number in range(tally.tried, tally.tried + count):
            outcome = faults.outcome(kind, self.options.seed, number, self.seeds, self.work / "fault")
            tally.add(outcome)
            if outcome.bad:
                self._tell(f"{kind}-{number}", outcome)
        self.record.save()

    def _examine(self, case: Case, outcome: Outcome) -> None:
        name = fault_name(case, outcome)
        if name in self.names or sum(one.startswith(case.kind) for one in self.names) >= MOST_FAULTS:
            return
        self.names.add(name)
        smallest = shrunk(case, outcome.bad, self._again)
        keep(smallest, name, outcome, self.found)
        self._tell(name, outcome)

    def _again(self, case: Case) -> Outcome:
        return next(forks.outcomes([case], self.work / "home"))[1]

    def _tell(self, name: str, outcome: Outcome) -> None:
        sys.stdout.write(f"BAD {name}: {outcome.bad}: {outcome.told[:200]}\n")
        sys.stdout.flush()


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--resume", action="store_true", help="go on with the run of this seed")
    parser.add_argument("--only", nargs="*", help="these kinds alone")
    parser.add_argument("--round", type=int, default=ROUND, help="inputs of a kind before the next kind's turn")
    parser.add_argument("--once", action="store_true", help="the cases that were found before and one round, no more")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where seeds, counts and what is found are kept")
    parser.add_argument("--no-record", action="store_true", help=f"leave {RESULTS.name}/campaign.json as it is")
    return parser.parse_args(arguments)


def main() -> None:
    options = read_options()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # inputs live for milliseconds
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=memory) as work:
        campaign = Campaign(options, Path(work))
        if options.once:
            campaign.replay(CASES)
        run(campaign)
        record = campaign.record.to_dict()
    if not options.no_record:
        write_record("campaign", record)
    sys.exit(1 if any(values["bad"] for values in record["kinds"].values()) else 0)


def run(campaign: Campaign) -> None:
    """Rounds of every kind in turn until the time is over."""
    wanted = campaign.options.only
    kinds: list[Any] = [*KINDS.values(), *faults.SHARES]
    chosen = [kind for kind in kinds if not wanted or (kind.name if isinstance(kind, Kind) else kind) in wanted]
    while True:
        for kind in chosen:
            if time.monotonic() > campaign.end:
                return
            campaign.inputs(kind) if isinstance(kind, Kind) else campaign.faults(kind)
        if campaign.options.once:
            return


if __name__ == "__main__":
    main()
