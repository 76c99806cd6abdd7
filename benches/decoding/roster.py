"""Who takes part: by name, the precision that it is compared in, and the command of its worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt_export.artifact.reading import Artifact

from benches.decoding.environments import genai_python, llama_python, openvino_python, optimum_python
from benches.decoding.files import Files

OURS = "ours"
PRECISIONS = ("fp32", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Entrant:
    """One engine on one file."""

    name: str
    precision: str
    engine: str
    python: Callable[[], Path]
    path: Callable[[], Path]

    def command(self, threads: int) -> list[str | Path]:
        """What starts the worker; makes the environment and the file if they are not there."""
        return [self.python(), "-m", "benches.decoding.worker", self.engine, self.path(), str(threads)]


def peers(files: Files) -> list[Entrant]:
    """Every peer, fp32 first."""
    cache = files.cache

    def optimum() -> Path:
        return optimum_python(cache)

    def openvino() -> Path:
        return openvino_python(cache)

    def llama() -> Path:
        return llama_python(cache)

    def of_llama(kind: str, precision: str) -> Entrant:
        return Entrant(f"llama.cpp {kind.upper()}", precision, "llama", llama, lambda: files.llama(kind))

    def of_openvino(precision: str) -> Entrant:
        return Entrant(f"OpenVINO {precision}", precision, "openvino", openvino, lambda: files.openvino(precision))

    def of_ctranslate(kind: str, precision: str) -> Entrant:
        return Entrant(f"CTranslate2 {kind}", precision, "ctranslate", openvino, lambda: files.ctranslate(kind))

    def of_genai(precision: str) -> Entrant:
        return Entrant(
            f"onnxruntime-genai {precision}",
            precision,
            "genai",
            lambda: genai_python(cache),
            lambda: files.genai(precision),
        )

    built = [of_genai("fp32"), of_genai("int4")] if files.family() != "gpt2" else []  # its builder takes no GPT-2
    return [
        Entrant("PyTorch eager", "fp32", "eager", optimum, files.checkpoint),
        Entrant("Optimum", "fp32", "optimum", optimum, files.optimum),
        of_ctranslate("float32", "fp32"),
        of_openvino("fp32"),
        of_llama("f32", "fp32"),
        of_ctranslate("int8", "int8"),
        of_openvino("int8"),
        of_llama("q8_0", "int8"),
        of_openvino("int4"),
        of_llama("q4_0", "int4"),
        of_llama("q4_k_m", "int4"),
        *built,
    ]


def ours(artifact: Path) -> list[Entrant]:
    """Every variant of an artifact."""

    def of(variant: str) -> Entrant:
        path = Path(f"{artifact}#{variant}")
        precision, _, _ = variant.partition("-")  # `int4-kv8` is int4 with a cache of 8 bits
        return Entrant(f"{OURS} {variant}", precision, "ours", lambda: Path(sys.executable), lambda: path)

    return [of(variant) for variant in sorted(Artifact.open(artifact).manifest.variants)]


def chosen(entrants: Sequence[Entrant], names: Sequence[str]) -> list[Entrant]:
    """The entrants whose names begin with one of `names`, all if there are none.

    Raises:
        SystemExit: a name begins none.
    """
    for name in names:
        if not any(one.name.startswith(name) for one in entrants):
            raise SystemExit(f"{name!r} is none of {', '.join(one.name for one in entrants)}")
    return [one for one in entrants if not names or one.name.startswith(tuple(names))]
