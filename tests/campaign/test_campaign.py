"""A short part of the campaign, the faults that it found before, and that it sees what is bad."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from gpt_export.cli.errors import ErrorHandlingGroup

from tests.campaign import forks, oracle
from tests.campaign.case import Case, Mutation, draw
from tests.campaign.faults import SHARES
from tests.campaign.kinds import KINDS
from tests.campaign.oracle import Outcome
from tests.campaign.record import Record
from tests.campaign.shrink import fault_name, shrunk

CASES = Path(__file__).parent / "cases"


def test_a_round_of_every_kind_and_all_that_was_found_before_is_as_promised(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaign", "--once", "--round", "30", "--seed", "3", "--no-record"]
    done = subprocess.run([*command, "--cache", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["kinds"]
    assert set(counted) == {*KINDS, *SHARES, "cases"}
    assert counted["cases"]["tried"] == len(list(CASES.glob("*.json"))) > 10
    assert sum(values["tried"] for values in counted.values()) > 200
    # Mutations that everything refused, or nothing, would be of no use.
    for kind in ("manifest", "configuration", "tokenizer"):
        assert 0 < counted[kind]["refused"] < counted[kind]["tried"], kind


def planted(does: Callable[[], object]) -> click.Group:
    """A command line whose `inspect` does what it should not."""

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def inspect(arguments: tuple[str, ...]) -> None:
        del arguments
        does()

    return ErrorHandlingGroup(name="gpt-export", commands={"inspect": inspect})


def fails() -> None:
    raise KeyError("x")


def sleeps_on_the_processor() -> None:
    while True:
        pass


PLANTED: dict[str, tuple[Callable[[], object], str]] = {
    "traceback": (lambda: sys.stderr.write("Traceback (most recent call last)"), "traceback"),
    "unexpected": (fails, "unexpected"),
    "exit code": (lambda: sys.exit(7), "exit code 7"),
    "silence": (lambda: sys.exit(1), "failed without a word"),
    "memory": (lambda: b"x" * 1_100_000_000, "memory"),
    "hang": (sleeps_on_the_processor, "hung"),
    "crash": (lambda: (faulthandler.disable(), os.abort()), "crashed with SIGABRT"),
    "code": (lambda: os.system("true"), "ran os.system"),
    "canary": (lambda: Path("canary").touch(), "code ran"),
    "outside": (lambda: Path("../../beside").touch(), "wrote "),
    "beside": (lambda: Path("../beside").touch(), "wrote beside its folders"),
    "input": (lambda: Path("../in/new").touch(), "changed its input"),
    "half": (lambda: Path("../out/x").mkdir() or Path("../out/x/manifest.json").write_text("{"), "a half artifact"),
    "staging": (lambda: Path("../out/.x.staging-1").mkdir(), "left something beside the output"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_bad_is_seen(name: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does, bad = PLANTED[name]
    monkeypatch.setattr(oracle, "group", lambda: planted(does))
    monkeypatch.setattr(oracle, "MOST_SECONDS", 0.5 if name == "hang" else 30.0)
    monkeypatch.setattr(forks, "SEEDS", tmp_path / "seeds")
    tiny.parent.joinpath("seeds").mkdir()
    tiny.rename(tmp_path / "seeds" / "artifact")
    case = Case("manifest", 0, ())
    ((_, outcome),) = forks.outcomes([case], tmp_path / "home")
    assert outcome.bad.startswith(bad), outcome


def test_what_is_good_is_not_called_bad(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "SEEDS", tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    tiny.rename(tmp_path / "seeds" / "artifact")
    cases = [Case("manifest", 0, ()), Case("manifest", 0, (Mutation("json: remove", 0.0, 0.0),))]
    assert [outcome.bad for _, outcome in forks.outcomes(cases, tmp_path / "home")] == ["", ""]


def test_the_same_seed_draws_the_same_cases_and_another_draws_others() -> None:
    ops = list(KINDS["pickle"].ops)
    assert draw("pickle", ops, 3, 1, 5) == draw("pickle", ops, 3, 1, 5)
    assert len({draw("pickle", ops, 3, seed, number) for seed in (1, 2) for number in range(50)}) == 100


def test_a_case_is_shrunk_to_what_it_is_bad_by() -> None:
    needed = {Mutation("a", 0.1, 0.1), Mutation("c", 0.3, 0.3)}
    case = Case(
        "onnx", 0, (Mutation("a", 0.1, 0.1), Mutation("b", 0.2, 0.2), Mutation("c", 0.3, 0.3), Mutation("d", 0, 0))
    )

    def outcome_of(tried: Case) -> Outcome:
        return Outcome(bad="hung" if needed <= set(tried.mutations) else "")

    assert set(shrunk(case, "hung", outcome_of).mutations) == needed
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case


def test_a_fault_has_one_name_whatever_the_input_is_called() -> None:
    case = Case("onnx", 0, ())
    names = {
        fault_name(case, Outcome(bad="unexpected", told=f"Error: unexpected KeyError: '{name}' in /tmp/{name}/x"))
        for name in ("a", "b")
    }
    assert names == {"onnx-unexpected-keyerror-in"}


def test_a_campaign_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Record(tmp_path / "record.json", 5, resume=False)
    first["onnx"].add(Outcome(1, 0.5, 3.0, "hung"))
    first.save()
    again = Record(tmp_path / "record.json", 5, resume=True)
    assert again["onnx"].tried == 1
    assert again["onnx"].reasons == {"hung": 1}
    assert Record(tmp_path / "record.json", 6, resume=True)["onnx"].tried == 0


def test_who_sleeps_is_ended_by_the_clock(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "group", lambda: planted(lambda: time.sleep(60)))
    monkeypatch.setattr(forks, "WALL_SECONDS", 3.0)
    monkeypatch.setattr(forks, "SEEDS", tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    tiny.rename(tmp_path / "seeds" / "artifact")
    ((_, outcome),) = forks.outcomes([Case("manifest", 0, ())], tmp_path / "home")
    assert outcome.bad == "hung"
