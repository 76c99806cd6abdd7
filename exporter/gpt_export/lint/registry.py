"""The rules by code, and the checks that apply them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gpt_export.errors import ConfigError
from gpt_export.lint.finding import Finding, Location, Severity
from gpt_export.lint.model import LintModel
from gpt_export.lint.settings import LintSettings


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


Check = Callable[[LintModel, LintSettings], Iterable[Finding]]
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


def rules() -> tuple[Rule, ...]:
    """Every registered rule, by code."""
    import gpt_export.lint.rules  # noqa: F401  # registers them

    return tuple(_RULES[code] for code in sorted(_RULES))


def check_codes(codes: Iterable[str]) -> None:
    """Refuses codes that no rule has.

    Raises:
        ConfigError: naming the first unknown code and all known ones.
    """
    known = [each.code for each in rules()]
    for code in codes:
        if code not in known:
            raise ConfigError(f"{code!r} is no code of a rule; known are {', '.join(known)}")


def applied(check: Check, model: LintModel, settings: LintSettings) -> Iterator[Finding]:
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
