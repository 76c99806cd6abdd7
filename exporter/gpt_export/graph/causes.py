"""What a library's error says in one sentence, and where in the user's own code it came from."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from gpt_export.errors import GptExportError

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = Path(sysconfig.get_paths()["stdlib"]).resolve()
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_TORCHSCRIPT = "<--- HERE"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TELLS_NOTHING = re.compile(r"Error when translating node|Error when calling function|Failed to (?:export|decompose)")
"""How the wrappers begin that torch puts around an error without naming its reason."""
_LONGEST = 300
"""Characters of a reason; torch prints whole graphs into some of its messages."""


def explained(error: BaseException) -> str:
    """The innermost cause in one sentence, with the user's file and line if they can be found."""
    place = user_frame(error)
    cause = innermost_cause(error)
    return cause if place is None else f"{cause} ({place[0]}, line {place[1]})"


def innermost_cause(error: BaseException) -> str:
    """The first sentence of the deepest error in the chain that says anything: no colours, stack, or graph."""
    said = [text for link in chain_of(error) if (text := first_sentence(link))]
    telling = [text for text in said if not _TELLS_NOTHING.match(text)]
    return (telling or said or [type(error).__name__])[-1]


def user_frame(error: BaseException) -> tuple[str, int] | None:
    """File and line of the deepest frame that is the user's, of the innermost error that has one.

    Frames are taken from tracebacks, and from the text of messages, where torch writes the stack of what it compiles.
    Those of installed packages, of Python itself and of this package are nobody's to rewrite.
    """
    for link in reversed(list(chain_of(error))):
        frames = _below_this_package(link)
        if (found := deepest_of_users([*frames, *_places(str(link))])) is not None:
            return found
    return None


def frame_in_text(text: str) -> tuple[str, int] | None:
    """File and line of the user's deepest frame in a stack that torch printed, its last frame the deepest."""
    return deepest_of_users(_places(text))


def deepest_of_users(frames: list[tuple[str, int]]) -> tuple[str, int] | None:
    """The last of `frames`, deepest last, in a file that the user can edit."""
    return next((frame for frame in reversed(frames) if _is_users(frame[0])), None)


def _below_this_package(error: BaseException) -> list[tuple[str, int]]:
    """The frames of a traceback that this package called: a script that calls it is not what failed."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [i for i, (file, _) in enumerate(frames) if Path(file).resolve().is_relative_to(_PACKAGE)]
    return frames[ours[-1] + 1 :] if ours else frames


def _places(text: str) -> list[tuple[str, int]]:
    """The places that a message names, the deepest last; TorchScript, which marks its own, says the deepest first."""
    places = [(file, int(line)) for file, line in _PLACE.findall(_COLOURS.sub("", text))]
    return places[::-1] if _TORCHSCRIPT in text else places


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    if any(part in _INSTALLED for part in path.parts):
        return False
    return not path.is_relative_to(_STANDARD) and not path.is_relative_to(_PACKAGE)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on inwards, up to an earlier failure that this one only came after."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and (link is error or not isinstance(link, GptExportError)):
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def first_sentence(error: BaseException) -> str:
    """The first line of a message that has words, in one line; with the type's name where that is the message."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    first = next((line for line in lines if re.search(r"\w", line)), "")
    first = re.sub(r" at 0x[0-9a-f]+| at$", "", first).rstrip(":. ")
    if isinstance(error, KeyError | NotImplementedError | AssertionError | AttributeError | TypeError) or not first:
        first = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return first if len(first) <= _LONGEST else first[:_LONGEST].rsplit(" ", 1)[0] + " ..."
