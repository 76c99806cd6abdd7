"""Verdicts as values: what was compared, how far off it was, what was allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gpt_export.gate.limits import PERPLEXITY_TOKENS, UNKNOWN_TEXT, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case of one target, compared."""

    name: str
    batch: int
    sequence: int
    positions: int
    """Compared positions; padding is none of them."""
    note: str = ""
    """What the case does not show of what it was meant to, such as a shape that was shrunk; empty otherwise."""
    scale: float = 0.0
    """Root mean square of the reference's logits."""
    limit: float | None = 0.0
    """The largest difference allowed; where it is relative to each logit, at one of size `scale`; None where
    differences are not bounded but what they do to the next token is."""
    limit_source: str = "probe"
    max_abs: float = 0.0
    worst_ratio: float = 0.0
    """The largest difference in units of what is allowed there; at most 1 passes."""
    worst_index: tuple[int, int, int] = (0, 0, 0)
    """Row, position and token of that difference."""
    sqnr_db: float | None = None
    """Signal to quantisation noise: 10 log10(sum reference^2 / sum difference^2); None where nothing differs."""
    kl_mean: float = 0.0
    """KL divergence of the next-token distribution from the reference's, mean over positions, in nats."""
    kl_max: float = 0.0
    top1_agreement: float = 1.0
    """Share of positions whose likeliest token is the same; near-ties within the limit count as the same."""
    top1_ties: int = 0
    """Positions where the likeliest token differs, but by no more than both errors could explain."""
    top5_agreement: float = 1.0
    """Share of positions whose five likeliest tokens are the same, near-ties as above."""
    non_finite: int = 0
    """Candidate logits that are NaN or Inf."""
    reference_perplexity: float | None = None
    """On text, exp of the mean negative log-likelihood of each next token; None for ids that are no text."""
    candidate_perplexity: float | None = None
    perplexity_tokens: int = 0
    """How many next tokens the perplexities are of."""
    perplexity_limit: float | None = None
    vocab_size: int = UNKNOWN_TEXT
    error_by_position: tuple[float, ...] = ()
    """The largest difference at each position, over the rows."""
    kl_limit: float | None = None
    top1_limit: float = 1.0
    unsteady: int = 0
    """Positions that are not judged, because eager moves by itself as far: its last bits choose an expert there."""
    fault: str = ""
    """What kept the case from being compared, such as a wrong shape; empty otherwise."""

    @classmethod
    def faulty(cls, name: str, shape: tuple[int, ...], note: str, fault: str) -> CaseResult:
        """The result of a case that could not be compared."""
        return cls(name=name, batch=shape[0], sequence=shape[1], positions=0, note=note, fault=fault)

    @property
    def passed(self) -> bool:
        """Whether the candidate may be believed on this case."""
        within = self.worst_ratio <= 1 and self.top1_agreement >= self.top1_limit
        surprised = self._too_divergent or self._too_surprised
        return not self.fault and self.non_finite == 0 and within and not surprised

    @property
    def perplexity_change(self) -> float | None:
        """How much higher the candidate's perplexity is, as a share; None without a text."""
        if not self.reference_perplexity or self.candidate_perplexity is None:
            return None
        return self.candidate_perplexity / self.reference_perplexity - 1

    @property
    def strain(self) -> float:
        """How much of what is allowed was used; above 1 the case failed in its numbers."""
        if self.limit is not None or not self.kl_limit:
            return self.worst_ratio
        return self.kl_mean / self.kl_limit

    @property
    def _too_surprised(self) -> bool:
        change = self.judged_perplexity_change
        return self.perplexity_limit is not None and change is not None and abs(change) > self.perplexity_limit

    @property
    def judged_perplexity_change(self) -> float | None:
        """`perplexity_change` where it means something, else None: on enough tokens of a text that the model knows."""
        guessed = min(UNKNOWN_TEXT, self.vocab_size)  # a guess among all tokens has a perplexity of their number
        known = self.reference_perplexity is not None and self.reference_perplexity < guessed
        enough = self.perplexity_tokens >= PERPLEXITY_TOKENS
        return self.perplexity_change if known and enough else None

    @property
    def _too_divergent(self) -> bool:
        return self.kl_limit is not None and self.kl_mean > self.kl_limit

    def explain(self) -> str:
        """The failure in words."""
        if self.fault:
            return f"case {self.name}: {self.fault}"
        if self.non_finite:
            return f"case {self.name}: {self.non_finite} logits are NaN or Inf"
        if self.worst_ratio <= 1 and self._too_divergent:
            return (
                f"case {self.name}: the mean KL divergence is {self.kl_mean:.3g} where {self.kl_limit:.3g} is allowed"
            )
        if self.worst_ratio <= 1 and self._too_surprised:
            return (
                f"case {self.name}: the perplexity is {self.candidate_perplexity:.4g} where eager has "
                f"{self.reference_perplexity:.4g}, and {self.perplexity_limit:.2%} of change is allowed"
            )
        if self.limit is None:
            return (
                f"case {self.name}: the likeliest token agrees on {self.top1_agreement:.1%} where "
                f"{self.top1_limit:.1%} is demanded"
            )
        row, position, token = self.worst_index
        return (
            f"case {self.name}: logits differ by {self.max_abs:.3g} where {self.limit:.3g} is allowed "
            f"({self.worst_ratio:.3g} times; row {row}, position {position}, token {token}; "
            f"top-1 agrees on {self.top1_agreement:.1%})"
        )

    def with_fault(self, fault: str) -> CaseResult:
        """This result, failed because of `fault`."""
        return replace(self, fault=fault)

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field, and `passed`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays = {"worst_index": list(self.worst_index), "error_by_position": list(self.error_by_position)}
        return values | arrays | {"passed": self.passed}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsResult:
    """The bit-for-bit comparison of the file's weights with their source."""

    checked: int
    size_bytes: int
    mismatches: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all are equal."""
        return not self.mismatches

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field, and `passed`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"mismatches": list(self.mismatches), "passed": self.passed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One activation of the graph beside eager's, where the graph computes it."""

    layer: int | None
    """Zero-based block, None outside the blocks."""
    part: str
    """`embedding`, `attention`, `mlp`, `norm` or `head`."""
    module: str
    """The eager module, and whether it is its input or its output, such as `trf_blocks.3.att.out_proj input`."""
    operator: str
    """The ONNX operator that computes the tensor."""
    tensor: str
    """The name of the tensor in the graph."""
    shape: tuple[int, ...]
    max_abs: float
    limit: float
    ratio: float
    worst_index: tuple[int, ...]
    expected: float
    found: float
    cause: str = ""
    """What is known to make such a difference, in words; empty unless it is the first fault."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `layer`, `part`, `module`, `operator`, `tensor`, `worst`, `cause` and the figures."""
        return {
            "layer": self.layer,
            "part": self.part,
            "module": self.module,
            "operator": self.operator,
            "tensor": self.tensor,
            "cause": self.cause,
            "ratio": self.ratio,
            "worst": {
                "index": list(self.worst_index),
                "shape": list(self.shape),
                "expected": self.expected,
                "found": self.found,
                "max_abs": self.max_abs,
                "limit": self.limit,
            },
        }

    def explain(self) -> str:
        """The deviation in one sentence."""
        where = "outside the blocks" if self.layer is None else f"in layer {self.layer}"
        if not self.shape:
            return f"first fault {where}, {self.part}: {self.operator} {self.tensor} ({self.module}): {self.cause}"
        return (
            f"first fault {where}, {self.part}: {self.operator} {self.tensor} ({self.module}) is {self.found:.6g} "
            f"where eager has {self.expected:.6g}, at {list(self.worst_index)} of {list(self.shape)}"
            f"{'; ' + self.cause if self.cause else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The verdict on an artifact: every case of every target, and the weights."""

    targets: Mapping[str, tuple[CaseResult, ...]]
    weights: WeightsResult | None
    noise: float
    """Relative error of eager float32 against float64; see `gpt_export.gate.parity.Tolerance`."""
    limits: Limits
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """What forbids to believe the file whatever its outputs were, such as a Dropout in training mode."""
    reference_faults: tuple[str, ...] = ()
    """What keeps the reference from being a decoder, so that nothing can be judged by it."""
    layers: tuple[Deviation, ...] = ()
    """Activations along the graph on the worst case, in topological order."""
    layers_case: str = ""
    """The case whose activations `layers` are."""
    opened: Mapping[str, Any] | None = None
    """The worst case token by token, see `gpt_export.gate.opened`."""
    quantized: Mapping[str, Any] = field(default_factory=dict)
    """By variant, how far its quantised matrices are from their source; see `gpt_export.gate.codes_check`."""
    judged_against: str = ""
    """What the reference is, in words; see `Source.judged_against`."""
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    """The machine whose rounding the figures have; see `gpt_export.gate.measured_on`."""

    @property
    def first_fault(self) -> Deviation | None:
        """The first activation that left its tolerance, if an output did."""
        if self.passed:
            return None
        return next((deviation for deviation in self.layers if deviation.ratio > 1), None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every failure in words; empty when the artifact may be believed."""
        weights = () if self.weights is None else self.weights.mismatches
        cases = [
            f"{target}, {result.explain()}"
            for target, results in self.targets.items()
            for result in results
            if not result.passed
        ]
        return (*self.reference_faults, *self.faults, *weights, *cases)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def summary(self) -> dict[str, Any]:
        """What the manifest keeps: the verdict and the worst figures of each target."""
        fault = self.first_fault
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "first_fault": fault.to_dict() if fault else None,
            "judged_against": self.judged_against,
            "measured_on": dict(self.measured_on),
            "noise": self.noise,
            "limits": self.limits.to_dict(),
            "notes": list(self.notes),
            "faults": [*self.reference_faults, *self.faults],
            "weights": None if self.weights is None else self.weights.to_dict(),
            "quantized": {name: dict(figures) for name, figures in self.quantized.items()},
            "targets": {target: _worst(results) for target, results in self.targets.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """The summary with every case, every layer, and the worst case token by token."""
        cases = {target: [result.to_dict() for result in results] for target, results in self.targets.items()}
        layers = {"case": self.layers_case, "deviations": [deviation.to_dict() for deviation in self.layers]}
        return self.summary() | {"cases": cases, "layers": layers, "opened": self.opened}


def target_words(target: str) -> str:
    """What a target is called for a person: the float32 graph by its precision."""
    return {"onnx": "fp32", "torchscript": "TorchScript"}.get(target, target)


def largest_perplexity_change(results: Sequence[CaseResult]) -> float | None:
    """The change of perplexity that is largest in size, None where none was judged."""
    changes = [change for result in results if (change := result.judged_perplexity_change) is not None]
    return max(changes, key=abs, default=None)


def _worst(results: tuple[CaseResult, ...]) -> dict[str, Any]:
    return {
        "cases": len(results),
        "passed": all(result.passed for result in results),
        "bounded": all(result.limit is not None for result in results),
        "positions": sum(result.positions for result in results),
        "max_abs": max(result.max_abs for result in results),
        "worst_ratio": max(result.worst_ratio for result in results),
        "strain": max(result.strain for result in results),
        "sqnr_db": min((result.sqnr_db for result in results if result.sqnr_db is not None), default=None),
        "kl_mean": max(result.kl_mean for result in results),
        "kl_max": max(result.kl_max for result in results),
        "top1_agreement": min(result.top1_agreement for result in results),
        "top5_agreement": min(result.top5_agreement for result in results),
        "perplexity_change": largest_perplexity_change(results),
        "non_finite": sum(result.non_finite for result in results),
    }
