"""Records of parts, in order, to what each document and the whole corpus cost."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpt_export.scoring.bootstrap import Replicates
from gpt_export.scoring.exact_sum import ExactSum
from gpt_export.scoring.records import BINS

MANY_DOCUMENTS = 30
"""From here on the interval draws documents, which are the independent observations; below, blocks of their tokens."""
BIN_NATS = 0.1
WORST = 20
POINTS = 1500
"""Dots of the scatter at most, drawn by a hash of their place."""


def perplexity(nll: float, scored: int) -> float:
    """e to the mean loss, kept finite."""
    return math.exp(min(nll / scored, 700.0))


@dataclass(slots=True)
class _Document:
    """A document whose fragments are coming."""

    number: int
    name: str
    extra: Any
    tokens: int = 0
    size_bytes: int = 0
    scored: int = 0
    fault: str | None = None
    compared: bool = False
    nll: ExactSum = field(default_factory=ExactSum)
    reference_nll: ExactSum = field(default_factory=ExactSum)
    kl: ExactSum = field(default_factory=ExactSum)
    kl_max: float = 0.0
    same: int = 0
    replicates: Replicates = field(default_factory=Replicates)

    def add(self, part: Mapping[str, Any]) -> None:
        self.tokens += part["tokens"]
        self.size_bytes += part["bytes"]
        self.fault = self.fault or part["fault"]
        if part["fault"]:
            return
        self.scored += part["scored"]
        self.nll.add(part["nll"])
        counts, losses = np.array(part["blocks"], dtype=np.float64).T
        self.replicates.add((self.number, part["windows"][0][0]), counts, losses)
        if "kl" in part:
            self.compared = True
            self.reference_nll.add(part["reference_nll"])
            self.kl.add(part["kl"])
            self.kl_max = max(self.kl_max, part["kl_max"])
            self.same += part["same"]

    def to_dict(self) -> dict[str, Any]:
        told = {"document": self.number, "name": self.name, "id": self.extra}
        return told | figures(self, self.replicates, self.compared)


def figures(of: _Document | Totals, replicates: Replicates, compared: bool) -> dict[str, Any]:
    """What is told of a document, and of all."""
    nll, interval = float(of.nll), replicates.perplexity()
    read = of.size_bytes * of.scored / of.tokens if of.tokens else 0.0
    told: dict[str, Any] = {
        "tokens": of.tokens,
        "scored": of.scored,
        "bytes": of.size_bytes,
        "nll": nll,
        "perplexity": perplexity(nll, of.scored) if of.scored else None,
        "perplexity_low": interval[0] if interval else None,
        "perplexity_high": interval[1] if interval else None,
        "bits_per_byte": nll / math.log(2) / read if read else None,
    }
    if compared and of.scored:
        told |= {
            "reference_nll": float(of.reference_nll),
            "reference_perplexity": perplexity(float(of.reference_nll), of.scored),
            "kl_mean": float(of.kl) / of.scored,
            "kl_max": of.kl_max,
            "top1_agreement": of.same / of.scored,
        }
    return told


class Totals:
    """What has been scored so far. Its size does not grow with the corpus."""

    def __init__(self) -> None:
        self.documents = self.tokens = self.scored = self.size_bytes = self.same = 0
        self.nll, self.reference_nll, self.kl = ExactSum(), ExactSum(), ExactSum()
        self.kl_max = 0.0
        self.compared = False
        self.failed = 0
        self.loss_bins: dict[int, int] = {}
        self._by_document, self._by_block = Replicates(), Replicates()
        self._pending: _Document | None = None
        self._positions: dict[str, Any] = {}
        self._calibration: dict[str, Any] = {}
        self._worst_positions: list[dict[str, Any]] = []
        self._worst_documents: list[tuple[float, int, dict[str, Any]]] = []
        self._points: list[tuple[int, tuple[float, float, str]]] = []

    def add(self, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Takes the next part; yields what is told of each document that ends in it, or its `fault`."""
        self._add_places(record)
        for part in record["documents"]:
            if self._pending is None:
                self._pending = _Document(part["document"], part["name"], part["id"])
            self._pending.add(part)
            if not part["fault"]:
                self._note_points(part)
            if part["ends"]:
                done, self._pending = self._pending, None
                yield self._finish(done)

    def to_dict(self) -> dict[str, Any]:
        """JSON values of everything, for `summary.json` and the page."""
        many = self.documents >= MANY_DOCUMENTS
        told: dict[str, Any] = {"documents": self.documents, "failed": self.failed}
        told |= figures(self, self._by_document if many else self._by_block, self.compared)
        told |= {
            "interval_of": "documents" if many else "blocks of tokens",
            "loss_by_document": [[round(at * BIN_NATS, 1), n] for at, n in sorted(self.loss_bins.items())],
            "loss_by_position": self._position_means(),
            "calibration": self._calibrated(),
            "worst_documents": [
                entry for _, _, entry in sorted(self._worst_documents, key=lambda one: (-one[0], -one[1]))
            ],
        }
        if self.compared:
            told |= {
                "worst_positions": self._worst_positions,
                "scatter": [list(point) for _, point in sorted(self._points, key=lambda one: -one[0])],
            }
        return told

    def _finish(self, done: _Document) -> dict[str, Any]:
        if done.fault:
            self.failed += 1
            return {"document": done.number, "name": done.name, "id": done.extra, "fault": done.fault}
        self.documents += 1
        self.tokens += done.tokens
        self.scored += done.scored
        self.size_bytes += done.size_bytes
        self.same += done.same
        self.kl_max = max(self.kl_max, done.kl_max)
        self.compared |= done.compared
        for mine, its in ((self.nll, done.nll), (self.reference_nll, done.reference_nll), (self.kl, done.kl)):
            mine.add(float(its))
        self._by_block.merge(done.replicates)
        loss = float(done.nll) / done.scored
        self._by_document.add((done.number,), np.array([float(done.scored)]), np.array([float(done.nll)]))
        bin_ = int(loss / BIN_NATS)
        self.loss_bins[bin_] = self.loss_bins.get(bin_, 0) + 1
        told = done.to_dict()
        _keep_largest(self._worst_documents, (loss, -done.number, told), WORST)
        return told

    def _note_points(self, part: Mapping[str, Any]) -> None:
        for start, scored, nll, reference in part["windows"]:
            if reference is not None:
                place = hashlib.blake2b(f"{part['document']} {start}".encode(), digest_size=8).digest()
                point = (reference / scored, nll / scored, f"{part['name']}, token {start}")
                _keep_largest(self._points, (-int.from_bytes(place, "big"), point), POINTS)

    def _add_places(self, record: Mapping[str, Any]) -> None:
        for kept, new in ((self._positions, record["positions"]), (self._calibration, record["calibration"])):
            for key, values in new.items():
                kept[key] = kept.get(key, 0.0) + np.array(values)
        both = [*self._worst_positions, *record["worst"]]
        self._worst_positions = sorted(both, key=lambda one: (-one["kl"], one["document"], one["token"]))[:WORST]

    def _position_means(self) -> list[list[float]]:
        if not self._positions:
            return []
        pairs = zip(self._positions["count"], self._positions["sum"], strict=True)
        return [[at, int(n), float(total / n)] for at, (n, total) in enumerate(pairs) if n]

    def _calibrated(self) -> list[list[float]]:
        if not self._calibration:
            return []
        columns = (self._calibration[key] for key in ("count", "sum", "hits"))
        return [
            [at / BINS, int(n), float(total / n), float(hits / n)]
            for at, (n, total, hits) in enumerate(zip(*columns, strict=True))
            if n
        ]


def _keep_largest(heap: list[Any], item: Any, size: int) -> None:
    if len(heap) < size:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)
