"""How a corpus is scored, and by whom. The first decides the figures and is recorded with them; the second does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from gpt_export.errors import ConfigError

Engine = Literal["local", "ray", "inline"]
PART_TOKENS = 1 << 13
"""A part of the results covers about so many tokens: what is done again when a run was killed."""
PART_WINDOWS = 4
"""And no fewer than so many windows: what a part says of each position is then little beside its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """What decides the figures of a score.

    Raises:
        ConfigError: a value is out of range, or two do not go together.
    """

    variant: str = "fp32"
    against: str | None = None
    """SOURCE of an eager reference to compare with."""
    against_variant: str | None = None
    """Variant of the same artifact to compare with."""
    window: int | None = None
    """Tokens that are seen at once; None is the context."""
    stride: int | None = None
    """Tokens from one window to the next; None is the window."""
    whole_windows: bool = False
    """Leave out what does not fill a window, as benchmarks do."""
    part_tokens: int | None = None
    """Tokens that results are written for together; None is `PART_TOKENS`, or more for long windows."""
    source_options: dict[str, Any] = field(default_factory=dict)
    """What `read_source` takes beside the name of `against`."""

    def __post_init__(self) -> None:
        if self.against is not None and self.against_variant is not None:
            raise ConfigError("a score has one reference: pass --against or --against-variant, not both")
        if self.against_variant is not None and self.against_variant == self.variant:
            raise ConfigError(f"{self.variant} would be compared with itself; name another --against-variant")
        if self.window is not None and self.window < 2:
            raise ConfigError(f"a window of {self.window} tokens scores none; pass at least 2")
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"stride {self.stride} is out of range; pass at least 1")
        if self.part_tokens is not None and self.part_tokens < 1:
            raise ConfigError(f"part_tokens {self.part_tokens} is out of range; pass at least 1")

    @property
    def compares(self) -> bool:
        """Whether there is a reference."""
        return self.against is not None or self.against_variant is not None

    def for_context(self, context_length: int) -> tuple[int, int]:
        """Window and stride in a model with this context.

        Raises:
            ConfigError: the window does not fit, or tokens between two windows would be left out.
        """
        window = self.window or context_length
        stride = self.stride or window
        if window > context_length:
            raise ConfigError(f"a window of {window} tokens does not fit into the context of {context_length}")
        if stride > window:
            raise ConfigError(
                f"a stride of {stride} leaves out tokens between windows of {window}; pass at most {window}"
            )
        return window, stride

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        options = {key: value if isinstance(value, int) else str(value) for key, value in self.source_options.items()}
        return asdict(self) | {"source_options": options}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Who does the work.

    Raises:
        ConfigError: a value is out of range.
    """

    engine: Engine = "local"
    workers: int | None = None
    """None is one a core, or fewer where memory does not suffice; on Ray, one a core of the cluster."""
    threads: int | None = None
    """Of each worker; None is the cores divided by the workers."""
    prepack: bool | None = None
    """Let onnxruntime keep a rearranged copy of the weights in each worker: a third faster. Without it, workers of one
    machine share the mapped file. None is with, where the copies fit into a quarter of the memory that is free."""
    address: str | None = None
    """Of a Ray cluster, such as `127.0.0.1:6379`; None starts one on this machine for the time of the run."""
    ship: bool = False
    """Send the artifact to every node, also to those that have the folder."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise ConfigError(f"engine {self.engine!r} is not known; choose one of {', '.join(get_args(Engine))}")
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} is out of range; pass at least 1")
        if self.address is not None and self.engine != "ray":
            raise ConfigError(f"--ray-address is for --engine ray, and the engine is {self.engine}")
