"""Where in the user's own code an error came from."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

_OURS = Path(__file__).resolve().parents[1]
_LIBRARIES = (Path(torch.__file__).resolve().parent, _OURS, Path(sysconfig.get_paths()["stdlib"]).resolve())
_WITHOUT_ONNX = "flex_attention has no ONNX form; call scaled_dot_product_attention with a mask or a bias instead"
_INSTALLED = ("site-packages", "dist-packages")


def blame(error: BaseException) -> str:
    """The error in one line, with file and line of the deepest frame that is the user's.

    Frames of torch, of Python and of this package are nobody's to rewrite; those of other installed packages count
    only where there is no other.
    """
    text = _WITHOUT_ONNX if _in_flex_attention(error) else " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    own = [frame for frame in frames if not any(part in _INSTALLED for part in Path(frame.filename).parts)]
    frame = next(reversed(own or frames), None)
    return what if frame is None else f"{what} ({frame.filename}, line {frame.lineno})"


def _in_flex_attention(error: BaseException) -> bool:
    """Whether it is torch's flex_attention that failed, which compiles itself and runs beside nothing else."""
    return any(Path(frame.filename).name == "flex_attention.py" for frame in traceback.extract_tb(error.__traceback__))


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    installed = any(part in _INSTALLED for part in path.parts)
    # the standard library's folder holds site-packages, which is judged apart
    return not any(path.is_relative_to(place) and not (installed and i == 2) for i, place in enumerate(_LIBRARIES))
