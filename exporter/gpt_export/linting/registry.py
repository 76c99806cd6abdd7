"""The rules by code, and the checks that apply them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Location, Severity
from gpt_export.linting.settings import LintSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold, how bad it is if it does not, and what to do then."""

    code: str
    severity: Severity
    summary: str
    """What a finding means, one line."""
    remedy: str
    """What to do, one line; a finding may be more specific."""
    consumer: str | None = None

    def found(
        self, location: Location, message: str, *, remedy: str | None = None, severity: Severity | None = None
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            code=self.code,
            severity=severity or self.severity,
            location=location,
            message=message,
            remedy=remedy or self.remedy,
            consumer=self.consumer,
        )


Check = Callable[[OnnxModel, LintSettings], Iterable[Finding]]
"""Looks at one model and yields what is wrong with it."""

_RULES: dict[str, Rule] = {}


def rule(code: str, severity: Severity, summary: str, remedy: str, *, consumer: str | None = None) -> Rule:
    """A new rule, registered.

    Raises:
        ValueError: the code is taken.
    """
    if code in _RULES:
        raise ValueError(f"the code {code} is taken by {_RULES[code].summary!r}")
    made = Rule(code=code, severity=severity, summary=summary, remedy=remedy, consumer=consumer)
    _RULES[code] = made
    return made


def registered() -> tuple[Rule, ...]:
    """The rules of the files that were imported so far, by code; all of them are `gpt_export.linting.rules.rules`."""
    return tuple(_RULES[code] for code in sorted(_RULES))


def applied(check: Check, model: OnnxModel, settings: LintSettings) -> Iterator[Finding]:
    """The findings of `check` that the settings want, errors of contracts that do not apply made notes."""
    for finding in check(model, settings):
        if finding.code in settings.ignore or not settings.counts(finding.consumer):
            continue
        soft = finding.consumer and not settings.consumers and not model.is_cached_decoder
        if soft and finding.severity is not Severity.NOTE:
            yield _as_note(finding)
        else:
            yield finding


def _as_note(finding: Finding) -> Finding:
    return Finding(
        code=finding.code,
        severity=Severity.NOTE,
        location=finding.location,
        message=finding.message,
        remedy=finding.remedy,
        consumer=finding.consumer,
    )
