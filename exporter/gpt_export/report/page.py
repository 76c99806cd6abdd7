"""A parity report as one self-contained page: no script, no request, the same bytes for the same values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpt_export.artifact.machine import in_words
from gpt_export.artifact.manifest import MANIFEST_NAME, Manifest
from gpt_export.gate.limits import LIMITS
from gpt_export.gate.report import CaseResult, ParityReport, largest_perplexity_change, target_words
from gpt_export.report import figures, plots
from gpt_export.report.visible import printable, visible

REPORT_NAME = "report.html"
POINTS = 4000
"""The most dots of all position plots together; they are most of the page's bytes."""
UNHASHED = frozenset({REPORT_NAME, MANIFEST_NAME})
"""A page cannot hold its own hash, nor that of the manifest, which has the page's."""


def report_html(report: ParityReport, manifest: Manifest | None, *, name: str = "") -> str:
    """The page, as text in UTF-8 (it has no lone surrogates).

    Args:
        manifest: what was compared, if it is an artifact; its entries for the page and for itself are left out.
        name: what was compared, if it is not.
    """
    results = _bounded(report)
    template = _templates().get_template("report.html.jinja")
    return template.render(
        name=manifest.name if manifest else name,
        report=report,
        manifest=manifest,
        results=results,
        headline=headline(report),
        tiles=_tiles(report, results),
        step=(step := plots.step_for(results, POINTS)),
        positions=[
            _position_figure(report, target, step) for target, found in report.targets.items() if _is_bounded(found)
        ],
        layers=Markup(plots.layer_plot(report.layers, "layers", fault=report.first_fault)) if report.layers else None,
        families=plots.FAMILIES,
        parts=_parts(report),
        opened=_opened(report),
        limits=_limits(report, results),
        random_weights=manifest is not None and manifest.source.get("kind") == "seeded",
        files={path: entry for path, entry in sorted(manifest.files.items()) if path not in UNHASHED}
        if manifest
        else {},
    )


def headline(report: ParityReport) -> tuple[str, str]:
    """The verdict in one sentence, and what it rests on in another."""
    results = _bounded(report) if report.passed else _all(report)
    positions = figures.count(sum(result.positions for result in results), "position")
    cases = figures.count(len(results), "case")
    exact = [target_words(target) for target, found in report.targets.items() if _is_bounded(found)]
    if report.passed and len(exact) > 1:
        cases += f" of {figures.listed(exact)}"
    weights = report.weights
    if report.passed:
        worst = max((result.worst_ratio for result in results), default=0.0)
        basis = (
            f"On {positions} in {cases}, the largest difference of any logit is {figures.share(worst)} of what is "
            f"allowed, and the likeliest next token {_sameness(results)}."
        )
        if weights:
            stored = " that are not quantised" if report.quantized else ""
            basis += f" All {weights.checked} weights{stored} are equal bit for bit."
        if variants := [target for target, found in report.targets.items() if not _is_bounded(found)]:
            basis += f" {figures.listed(variants)} stay{'s' if len(variants) == 1 else ''} within limits of their own."
        return "The exported model computes what the original computes.", basis
    failed = sum(not result.passed for result in results)
    reasons = [f"{failed or 'none'} of {cases} failed, with {positions} compared"]
    if weights and weights.mismatches:
        reasons.append(f"{len(weights.mismatches)} of {figures.count(weights.checked, 'weight')} differ")
    if not failed and not (weights and weights.mismatches):
        reasons.append("but for another reason it may not be believed")
    return "The exported model does not compute what the original computes.", f"{', and '.join(reasons)}.".capitalize()


def _all(report: ParityReport) -> list[CaseResult]:
    return [result for found in report.targets.values() for result in found]


def _is_bounded(found: Sequence[CaseResult]) -> bool:
    return all(result.limit is not None for result in found)


def _bounded(report: ParityReport) -> list[CaseResult]:
    """The results of targets that must have eager's logits; those of quantised variants are told apart."""
    return [result for found in report.targets.values() if _is_bounded(found) for result in found] or _all(report)


def _variant_tiles(report: ParityReport) -> Iterator[_Tile]:
    for target, found in report.targets.items():
        compared = [result for result in found if not result.fault]
        if not _is_bounded(found) and compared:
            kl = max(result.kl_mean for result in compared)
            change = largest_perplexity_change(compared)
            worst = max(compared, key=lambda result: result.kl_mean)
            limit = "" if worst.kl_limit is None else f", of {figures.number(worst.kl_limit)} allowed"
            bound = "" if worst.perplexity_limit is None else f" of ±{worst.perplexity_limit:.1%}"
            perplexity = "not judged" if change is None else f"{change:+.2%}{bound}"
            note = f"nats of KL, worst mean{limit}; perplexity {perplexity}"
            yield _Tile(target, figures.number(kl), note, all(result.passed for result in found))


def _sameness(results: list[CaseResult]) -> str:
    ties = sum(result.top1_ties for result in results)
    least = min((result.top1_agreement for result in results), default=1.0)
    if least < 1:
        return f"is the same on at least {figures.agreement(least)} of each case"
    return f"is the same on all but {figures.count(ties, 'near-tie')}" if ties else "is always the same"


@dataclass(frozen=True, slots=True)
class _Tile:
    """One figure at the top of the page."""

    label: str
    value: str
    note: str
    ok: bool = True


def _tiles(report: ParityReport, results: list[CaseResult]) -> list[_Tile]:
    compared = [result for result in results if not result.fault]
    tiles = []
    if compared:
        worst = max(compared, key=lambda result: result.worst_ratio)
        largest = max(compared, key=lambda result: result.max_abs)
        noisiest = min((result.sqnr_db for result in compared if result.sqnr_db is not None), default=None)
        broken = sum(result.non_finite for result in compared)
        top1 = min(result.top1_agreement for result in compared)
        kl = max(result.kl_mean for result in compared)
        kl_ok = not any(result.kl_limit is not None and result.kl_mean > result.kl_limit for result in compared)
        tiles = [
            _Tile(
                "share of the limit", figures.share(worst.worst_ratio), f"worst in {worst.name}", worst.worst_ratio <= 1
            ),
            _Tile("largest difference", figures.number(largest.max_abs), "of any logit"),
            _Tile("same next token", figures.agreement(top1), "top-1, worst case", top1 >= report.limits.top1),
            _Tile("signal to noise", "exact" if noisiest is None else f"{noisiest:.0f} dB", "SQNR, worst case"),
            _Tile("KL divergence", figures.number(kl), "nats, worst mean", kl_ok),
        ]
        if broken:
            tiles.append(_Tile("not finite", f"{broken:,}", "logits are NaN or Inf", ok=False))
    tiles += _variant_tiles(report)
    if weights := report.weights:
        equal = weights.checked - len(weights.mismatches)
        tiles.append(_Tile("weights", f"{equal} / {weights.checked}", "equal bit for bit", weights.passed))
    return tiles


def _position_figure(report: ParityReport, target: str, step: int) -> dict[str, Any]:
    results = [result for result in report.targets[target] if result.error_by_position and result.limit is not None]
    present = {plots.family_of(result.name) for result in results}
    return {
        "target": target,
        "exact": all(not result.max_abs for result in results),
        "svg": Markup(plots.position_plot(results, f"positions-{target}", step=step)) if results else None,
        "families": [(key, label) for key, label in plots.FAMILIES if key in present],
        "non_finite": sum(result.non_finite for result in results),
    }


def _parts(report: ParityReport) -> list[tuple[str, str]]:
    present = {deviation.part for deviation in report.layers}
    others = [("other", "other")] if present - {key for key, _ in plots.PARTS} else []
    return [(key, label) for key, label in plots.PARTS if key in present] + others


def _opened(report: ParityReport) -> dict[str, Any] | None:
    """The worst case, each token with how warm it is, and with which of its choices differ between the sides."""
    if not report.opened or not report.opened["tokens"]:
        return None
    opened = report.opened
    result = next(found for found in report.targets[opened["target"]] if found.name == opened["case"])
    tokens = [_token(token, result) for token in opened["tokens"]]
    worst = next((token for token in tokens if token["position"] == result.worst_index[1]), tokens[0])
    return {**opened, "result": result, "tokens": tokens, "worst": worst}


def _token(token: Mapping[str, Any], result: CaseResult) -> dict[str, Any]:
    ratio = figures.limit_ratio(token["error"], result.limit or 0.0)
    ranks = [
        {"sides": sides, "differs": len({choice[0] for choice in sides}) > 1}
        for sides in zip(token["reference"], token["candidate"], strict=True)
    ]
    warmth = min(max(ratio, 0.0), 1.0) if ratio == ratio else 1.0
    return {**token, "ratio": ratio, "warmth": f"{100 * warmth:.0f}%", "over": not ratio <= 1, "ranks": ranks}


def _limits(report: ParityReport, results: list[CaseResult]) -> list[tuple[str, str, str]]:
    """Each limit: what it is on, its value, and how it was set."""
    limits, usual = report.limits, LIMITS["fp32"]
    is_usual = limits.noise_factor in (None, usual.noise_factor)
    rows = [(*_difference_limit(report, results), _origin(is_usual))]
    own = sorted({result.name for result in results if result.limit_source == "case"})
    if own:
        note = (
            "they left the limit at first, and were judged again by the original's float32 error on these very inputs"
        )
        named = ", ".join(own) if len(own) < 5 else f"{len(own)} of {len(results)}"
        rows.append(("Cases with a limit of their own", named, note, ""))
    kl = "none of its own" if limits.kl_mean is None else f"at most {figures.number(limits.kl_mean)} nats"
    kl_reason = "the limit on the difference bounds it already" if limits.kl_mean is None else ""
    rows.append(("Mean KL divergence of a case", kl, kl_reason, _origin(limits.kl_mean == usual.kl_mean)))
    top1 = f"at least {figures.agreement(limits.top1)}"
    reason = "a near-tie counts as the same: two tokens closer than both sides' errors could tell apart"
    rows.append(("Positions with the same likeliest token", top1, reason, _origin(limits.top1 == usual.top1)))
    rows += _variant_limits(report)
    if report.weights:
        rows.append(("Weights", "equal bit for bit", "the file's weights against the source's", ""))
    rows.append(("NaN or Inf", "none", "", ""))
    return [(rule, value, "; ".join(filter(None, (reason, origin)))) for rule, value, reason, origin in rows]


def _variant_limits(report: ParityReport) -> Iterator[tuple[str, str, str, str]]:
    """What the variants are held to whose logits need not be eager's."""
    for target, found in report.targets.items():
        result = next((result for result in found if result.limit is None), None)
        if result is None:
            continue
        allowed = [f"top-1 at least {figures.agreement(result.top1_limit)}"]
        if result.kl_limit is not None:
            allowed.insert(0, f"mean KL at most {figures.number(result.kl_limit)} nats")
        if result.perplexity_limit is not None:
            allowed.append(f"perplexity within {result.perplexity_limit:.1%}")
        yield target, ", ".join(allowed), "of a case, beside eager; the perplexity of a text that the model knows", ""


def _origin(is_usual: bool) -> str:
    return "" if is_usual else "given by the user"


def _difference_limit(report: ParityReport, results: list[CaseResult]) -> tuple[str, str, str]:
    rule, limits = "Difference of any logit", report.limits
    allowed = sorted(result.limit for result in results if not result.fault and result.limit is not None)
    shown = ""
    if allowed:
        low, high = figures.number(allowed[0]), figures.number(allowed[-1])
        shown = f" = {low}" if low == high else f" = {low} to {high}, by case"
    if limits.noise_factor is None:
        value = (
            f"{figures.number(limits.atol or 0)} + {figures.number(limits.rtol or 0)} {figures.TIMES} |logit|{shown}"
        )
        return rule, value, "given by the user in place of the measured limit"
    value = f"{limits.noise_factor:g} {figures.TIMES} float32's own error{shown}"
    reason = (
        f"the original itself, run in float32 and in float64, differs by {figures.number(report.noise)} of the size "
        "(root mean square) of its logits; an export may differ by a small multiple of that"
    )
    return (
        rule,
        value,
        reason,
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("gpt_export", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "number": figures.number,
        "share": figures.share,
        "of_limit": figures.of_limit,
        "agreement": figures.agreement,
        "size": figures.size,
        "visible": visible,
        "machine": in_words,
        "target": target_words,
    }
    templates.globals |= {"count": figures.count, "place_of": plots.place_of}
    return templates
