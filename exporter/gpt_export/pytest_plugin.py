"""The pytest plugin: a fixture that compares an artifact with its model, and its verdicts in the terminal summary.

    def test_the_export_is_the_model(assert_parity):
        assert_parity("artifacts/mine", my_model())

`--gpt-export-cases full` runs the full set, or cases by name. Nothing heavy is imported before the fixture is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gpt_export.gate.report import ParityReport

PROPERTY = "gpt_export_parity"
"""Verdicts travel as user properties of the test's report: into JUnit files, and past pytest-xdist's workers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--gpt-export-cases`."""
    group = parser.getgroup("gpt-export", "parity of exported GPTs")
    group.addoption(
        "--gpt-export-cases",
        metavar="CASES",
        default="default",
        help="what assert_parity compares: default, full, or names of cases with commas between them",
    )


@pytest.fixture
def assert_parity(request: pytest.FixtureRequest) -> Callable[..., ParityReport]:
    """`gpt_export.testing.assert_parity` with the cases of `--gpt-export-cases`, unless the call has its own."""
    chosen = tuple(str(request.config.getoption("--gpt-export-cases")).split(","))

    def check(artifact: Any, model: Any = None, **settings: Any) -> ParityReport:
        from gpt_export import testing

        name = str(getattr(artifact, "folder", artifact))
        try:
            report = testing.assert_parity(artifact, model, **{"cases": chosen} | settings)
        except testing.ParityAssertionError as error:
            request.node.user_properties.append((PROPERTY, f"FAILED {name}: {testing.summary(error.report)}"))
            __tracebackhide__ = True
            raise
        request.node.user_properties.append((PROPERTY, f"PASSED {name}: {testing.summary(report)}"))
        return report

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line an artifact, under a heading of its own."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    lines = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == PROPERTY]
    if not lines:
        return
    terminalreporter.write_sep("=", "gpt-export parity")
    for line in lines:
        terminalreporter.write_line(line, green=line.startswith("PASSED"), red=line.startswith("FAILED"))
