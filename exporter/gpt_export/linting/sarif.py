"""A lint report as SARIF 2.1.0 (OASIS), with what GitHub's code scanning asks for beyond that.

An ONNX file has no lines, so every region is its first line, and the tensor or node is a logical location. Without
lines GitHub cannot tell one result from another by itself, hence the fingerprints.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpt_export.linting.finding import Finding
from gpt_export.linting.registry import Rule
from gpt_export.linting.report import LintReport
from gpt_export.linting.rules import rules
from gpt_export.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(report: LintReport, base: Path) -> dict[str, Any]:
    """JSON values of a SARIF log with one run.

    Args:
        base: the folder that the files' URIs are relative to; of a file outside it only the last names are given.
    """
    known = rules()
    index = {rule.code: i for i, rule in enumerate(known)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "gpt-export lint",
                        "semanticVersion": __version__,
                        "rules": [_rule(rule) for rule in known],
                    }
                },
                "columnKind": "utf16CodeUnits",
                "results": [
                    _result(finding, index[finding.code], relative_uri(file.path, base))
                    for file in report.files
                    for finding in file.findings
                ],
            }
        ],
    }


def relative_uri(path: Path, base: Path) -> str:
    """The URI of `path` relative to `base`; the last two names of a file that is elsewhere."""
    resolved, root = path.resolve(), base.resolve()
    inside = resolved.is_relative_to(root)
    parts = resolved.relative_to(root).parts if inside else resolved.parts[-2:]
    return "/".join(quote(part) for part in parts if part != resolved.anchor)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.summary},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": str(rule.severity)},
        "properties": {"tags": [rule.consumer or "onnx"]},
    }


def _result(finding: Finding, index: int, uri: str) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}
    if finding.location.name:
        location["logicalLocations"] = [{"name": finding.location.name, "kind": finding.location.kind}]
    identity = "\0".join((finding.code, uri, finding.location.kind, finding.location.name, finding.message))
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": str(finding.severity),
        "message": {"text": f"{finding.message}. What to do: {finding.remedy}."},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": hashlib.sha256(identity.encode()).hexdigest()[:32]},
    }
