"""What the zoo knows of each of its modules, and the registry that holds them."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.zoo.spread import spread

VOCAB = 97
CONTEXT = 64

Output = Literal["logits", "last", "classes", "pooled", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Animal:
    """A module as somebody might write it, and what a perfect tool does with it."""

    name: str
    kind: str
    """The row of the documentation's table that counts it."""
    target: str
    """`module:factory`, as the command line takes it."""
    make: Callable[..., Any]
    """The factory: without arguments, the module in eval mode with its weights spread (unless it is a bad factory)."""
    vocab: int = VOCAB
    context: int = CONTEXT
    """The longest sequence that is asked of it; most can take no longer one."""
    output: Output = "logits"
    """(B, T, V), the last position's (B, 1, V), (B, T, classes), (B, classes), or nothing that can be compared."""
    classes: int | None = None
    """The last axis of the output where it is not the vocabulary."""
    causal: bool = True
    independent_rows: bool = True
    by_prefix: bool = True
    """Whether a text's first tokens have the logits that they have in the whole: not where its length is asked for."""
    deterministic: bool = True
    builds: bool = True
    """Whether the factory gives a module that runs on ids at all."""
    exports: bool = True
    cached: bool = True
    cached_to: int | None = None
    """Up to which length a cache is the same model, where its tables switch there: the context may be cut to that."""
    because: str = ""
    """A word that the sentence must have that refuses the export, or the cache where only that is refused."""

    def __post_init__(self) -> None:
        if (not self.exports or not self.cached) and not self.because:
            raise ValueError(f"{self.name} is refused something; say with which word")

    def __str__(self) -> str:
        return self.name


_ANIMALS: dict[str, Animal] = {}


def animal(kind: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that enters a factory into the zoo, and makes it give its module grown up: spread, in eval mode."""

    def enter(build: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build)
        def make(*arguments: Any, **options: Any) -> Any:
            return spread(build(*arguments, **options))

        name = build.__name__
        if name in _ANIMALS:
            raise ValueError(f"the zoo has two animals called {name}")
        _ANIMALS[name] = Animal(name=name, kind=kind, target=f"{build.__module__}:{name}", make=make, **facts)
        return make

    return enter


def animals() -> Iterator[Animal]:
    """All of the zoo, in the order in which it was entered."""
    yield from _ANIMALS.values()


def find(name: str) -> Animal:
    """The animal of that name."""
    return _ANIMALS[name]
