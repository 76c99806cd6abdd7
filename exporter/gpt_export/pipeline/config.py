"""The settings of an export, frozen and validated once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from gpt_export.artifact.variant_names import CACHE_KINDS, CacheKind, variant_name
from gpt_export.errors import ConfigError
from gpt_export.gate.limits import Limits
from gpt_export.gate.settings import GateSettings
from gpt_export.graph.opsets import DEFAULT_OPSET, check_opset
from gpt_export.graph.road_names import ROADS, Road
from gpt_export.weights.quantize.schemes import PRECISIONS, Precision

Gate = Literal["enforce", "report", "off"]
GATES: tuple[Gate, ...] = get_args(Gate)
Profile = Literal["portable", "ort"]
PROFILES: tuple[Profile, ...] = get_args(Profile)


CARD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
HUB_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Everything beside the source that decides the bytes of an artifact; recorded in its manifest.

    Raises:
        ConfigError: a value is out of range.
    """

    opset: int = DEFAULT_OPSET
    texts: tuple[str, ...] | None = None
    """Texts of the text case; None is the book's two prompts where the model has a tokenizer."""
    corpus: str | None = None
    """A text to compare on in windows of the context, from `--text-file`."""
    cases: tuple[str, ...] = ("default",)
    """`("default",)` of some hundred positions, `("full",)`, or the names of cases; a single one may be a string."""
    limits: Limits | None = None
    """What is allowed of float32; None is its row of `LIMITS`."""
    variant_kl: float | None = None
    """A bound on the mean KL of every other precision, where it is tighter than its row of `LIMITS`."""
    variant_top1: float | None = None
    """A share of agreeing likeliest tokens for every other precision, where it is more than its row demands."""
    gate: Gate = "enforce"
    """On a failed comparison `enforce` publishes nothing, `report` publishes and records it; `off` compares nothing."""
    seed: int = 123
    """Seeds the ids of the shape grid (a seeded source has drawn its weights from the same number)."""
    onnx: bool = True
    torchscript: bool | None = None
    """Whether `model.pt` is written; None is the source's choice (a second copy of a checkpoint is not)."""
    profile: Profile | None = None
    """The operators that may be used: `portable` is the standard ones alone, `ort` onnxruntime's fused ones as well;
    None is `ort` where the graph has a cache."""
    road: Road = "auto"
    """How a module becomes a graph: `script` is torch.jit.script, `export` is torch.export, `auto` the first of the
    two that takes the module."""
    cache: bool = True
    """Whether a graph gets a key-value cache, where one can be derived."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """The variants that are written, side by side; a single one may be a string."""
    kv_caches: tuple[CacheKind, ...] = ("fp32",)
    """What keys and values are kept in, a variant of each precision for each; a single one may be a string."""
    calibration: str | None = None
    """A text in the model's own domain, for rounding at 4 bits that knows what the layers read; None rounds to
    nearest."""
    single_file: bool = False
    """Whether the weights stay in the `.onnx` file whatever their size; below 2 GB only."""
    license: str | None = None
    """The licence of the weights as the hub names it, for the model card; None is not known."""
    base_model: str | None = None
    """The hub's name of the model that this is an export of, for the model card."""

    def __post_init__(self) -> None:
        for name in ("cases", "precisions", "kv_caches"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        check_opset(self.opset)
        self._check_caches()
        named = [("gate", self.gate, GATES), ("profile", self.profile or "ort", PROFILES), ("road", self.road, ROADS)]
        for name, value, allowed in (*named, *(("precision", value, PRECISIONS) for value in self.precisions)):
            if value not in allowed:
                raise ConfigError(f"{name} {value!r} is not known; choose one of {', '.join(allowed)}")
        if len(set(self.precisions)) != len(self.precisions) or not self.precisions:
            raise ConfigError(f"precisions {', '.join(self.precisions) or 'are none'}: name each one once")
        if self.profile == "portable" and self.precisions != ("fp32",):
            raise ConfigError(
                f"precision {', '.join(self.precisions)} needs onnxruntime's own operators, and --profile portable "
                "has none; leave one of the two out"
            )
        if self.calibration is not None and "int4" not in self.precisions and "int8" not in self.kv_caches:
            raise ConfigError("a calibration text is for int4, which is not asked for; add --precision int4")
        _ = self.gate_settings  # which refuses what is out of range
        for name, shape in (("license", CARD_ID), ("base_model", HUB_NAME)):
            value = getattr(self, name)
            if value is not None and not shape.fullmatch(value):
                example = "apache-2.0" if name == "license" else "openai-community/gpt2"
                raise ConfigError(f"{name} {value!r} is no name that the hub takes; pass one such as {example}")
        if not self.onnx and self.torchscript is False:
            raise ConfigError("neither ONNX nor TorchScript was asked for; ask for at least one")

    def _check_caches(self) -> None:
        for cache in self.kv_caches:
            if cache not in CACHE_KINDS:
                raise ConfigError(f"kv-cache {cache!r} is not known; choose one of {', '.join(CACHE_KINDS)}")
        if len(set(self.kv_caches)) != len(self.kv_caches) or not self.kv_caches:
            raise ConfigError(f"kv-cache {', '.join(self.kv_caches) or 'is none'}: name each one once")
        if "int8" not in self.kv_caches:
            return
        if self.profile == "portable":
            raise ConfigError("--kv-cache int8 needs onnxruntime's own operators; leave --profile portable out")
        if not self.cache:
            raise ConfigError("--kv-cache int8 needs a cache; leave --no-cache out")
        if self.precisions == ("fp16",):
            raise ConfigError(
                "--kv-cache int8 is for CPUs and fp16 for GPUs; leave one of them out, or name another precision too"
            )

    @property
    def variants(self) -> tuple[tuple[Precision, CacheKind], ...]:
        """What is written: every precision with every cache, but fp16, for GPUs, with its own alone."""
        return tuple(
            (precision, cache)
            for cache in self.kv_caches
            for precision in self.precisions
            if cache == "fp32" or precision != "fp16"
        )

    @property
    def floats_alone(self) -> bool:
        """Whether float32 is all that is written, weights and cache."""
        return self.precisions == ("fp32",) and self.kv_caches == ("fp32",)

    @property
    def gate_settings(self) -> GateSettings:
        """What is compared, and what is allowed."""
        return GateSettings(**{item.name: getattr(self, item.name) for item in fields(GateSettings)})

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field; of long texts their SHA-256."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        settings = self.gate_settings
        del values["variant_kl"], values["variant_top1"]
        return values | {
            "texts": None if self.texts is None else list(self.texts),
            "corpus": _sha256(self.corpus),
            "calibration": _sha256(self.calibration),
            "precisions": list(self.precisions),
            "kv_caches": list(self.kv_caches),
            "cases": list(self.cases),
            "limits": settings.allowed.to_dict(),
            "variant_limits": {
                name: settings.allowed_for(name).to_dict()
                for name in (variant_name(*variant) for variant in self.variants)
                if name != "fp32"
            },
        }


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
