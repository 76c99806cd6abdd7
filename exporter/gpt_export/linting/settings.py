"""What a lint is asked to look at. Light, so that `--help` can name the consumers."""

from __future__ import annotations

from dataclasses import dataclass

from gpt_export.artifact.releases import RELEASES, Release, release_named
from gpt_export.errors import ConfigError

OPTIMUM = "optimum"
TRANSFORMERS_JS = "transformers.js"
GENAI = "onnxruntime-genai"
TRITON = "triton"
CONSUMERS = (OPTIMUM, TRANSFORMERS_JS, GENAI, TRITON)
"""The loaders whose contracts are known, beside onnxruntime itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LintSettings:
    """The consumers that count, the onnxruntime that must load the file, and the codes to leave out.

    Raises:
        ConfigError: a name is not known; the message has the known ones.
    """

    consumers: tuple[str, ...] = ()
    """Consumers whose contracts are errors whatever the graph looks like; empty is all of them, as far as they apply:
    for a graph that is no cached decoder their errors are notes."""
    target_ort: str | None = None
    ignore: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in self.consumers:
            if name not in CONSUMERS:
                raise ConfigError(f"the consumer {name!r} is not known; choose from {', '.join(CONSUMERS)}")
        if self.target_ort is not None and self.target is None:
            known = f"{RELEASES[0].version} to {RELEASES[-1].version}"
            raise ConfigError(f"onnxruntime {self.target_ort!r} is not in the table; name a release from {known}")

    @property
    def target(self) -> Release | None:
        """The release that `target_ort` names, None if none was named."""
        return release_named(self.target_ort) if self.target_ort is not None else None

    def counts(self, consumer: str | None) -> bool:
        """Whether findings on this consumer's contract are wanted."""
        return consumer is None or not self.consumers or consumer in self.consumers
