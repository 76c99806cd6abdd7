"""Eager modules to TorchScript: the only file that knows how a model is scripted."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt_export.errors import ScriptError
from gpt_export.graph.causes import first_sentence, user_frame
from gpt_export.graph.optional_arguments import none_is_no_tensor
from gpt_export.graph.scopes import types_of_its_own
from gpt_export.graph.silence import silence

logger = logging.getLogger(__name__)


def script(module: nn.Module, *, apart: bool = False) -> torch.jit.ScriptModule:
    """`module` compiled by `torch.jit.script` (a script, not a trace), sharing its parameters.

    Args:
        apart: compile equal parts each for itself, so that a graph made of it has the names of all.

    Raises:
        ScriptError: the module uses what TorchScript does not compile; the message has torch's reason, file and line.
    """
    try:
        # torch reads every property of the module; what one of them says then is nobody's to act on.
        with silence(), types_of_its_own(apart=apart), none_is_no_tensor():
            scripted: torch.jit.ScriptModule = torch.jit.script(module)
    except Exception as error:  # torch raises a dozen unrelated types here, RuntimeError and OSError among them
        what = "rewrite that line" if user_frame(error) else "write that part"
        raise ScriptError(
            f"{type(module).__name__} does not script: {reason(error)}; "
            f"{what} in the subset of Python that TorchScript compiles"
        ) from error
    return scripted


def script_cached(decoder: nn.Module, n_layers: int) -> torch.jit.ScriptModule:
    """`decoder` compiled, with a `forward` of flat tensors: ids, mask, positions, then key and value of each layer.

    It returns the logits and the present key and value of each layer. A tuple of past tensors would not become graph
    inputs, so the method is written out for the layer count and compiled from its text (`ScriptModule.define`).

    Raises:
        ScriptError: the decoder uses what TorchScript does not compile.
    """
    layers = range(n_layers)
    past = ", ".join(f"past_key_{i}: Tensor, past_value_{i}: Tensor" for i in layers)
    present = ", ".join(f"key_{i}, value_{i}" for i in layers)
    lines = [
        f"def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, {past}):",
        "    x = self.embed(input_ids, position_ids)",
        "    bias = self.attention_bias(attention_mask, input_ids.shape[1], x)",
        *(f"    x, key_{i}, value_{i} = self.trf_blocks[{i}](x, bias, past_key_{i}, past_value_{i})" for i in layers),
        f"    return self.head(x), {present}",
    ]
    scripted = script(decoder, apart=True)
    scripted.define("\n".join(lines) + "\n")
    return scripted


@contextlib.contextmanager
def deprecations_hidden() -> Iterator[None]:
    """Keeps torch's notes on the age of TorchScript off the screen, and no other warning."""
    with warnings.catch_warnings():
        for message in (
            r".*`torch\.jit\.\w+` is (deprecated|not supported).*",
            r".*legacy TorchScript-based ONNX export.*",
            r"The feature will be removed\. Please remove usage of this function",  # said of the exporter's own logging
        ):
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", message=message, category=category)
        # The exporter's remark that `script_cached`'s forward has no Python source whose parameters it could read.
        warnings.filterwarnings(
            "ignore", message=r"no signature found for <torch\.ScriptMethod.*", category=UserWarning
        )
        yield


@contextlib.contextmanager
def graph_dumps_logged() -> Iterator[None]:
    """Sends what the exporter prints to stdout, a whole graph when it fails, to the log instead; errors still come.

    torch 2.13 switches that printing on whatever its own flag says (`setup_onnx_logging` tests the getter, not its
    value), so the printing function itself is exchanged.
    """
    printing = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *parts: logger.debug("%s", " ".join(map(str, parts)))
    try:
        yield
    finally:
        torch._C._jit_onnx_log = printing


@contextlib.contextmanager
def example_run_skipped(outputs: Sequence[Tensor]) -> Iterator[None]:
    """Lets the exporter take `outputs` for what the module returns, instead of running it to learn their shapes.

    On the meta device that run imports most of torch's compiler, for shapes that the signature states anyway: it is
    four fifths of the time of a small export. Where torch has no such function the run takes place.
    """
    found = _exporter_utils()
    if found is None:
        yield
        return
    utils, running = found
    utils._get_example_outputs = lambda _model, _args: tuple(outputs)
    try:
        yield
    finally:
        utils._get_example_outputs = running


def _exporter_utils() -> tuple[Any, Callable[..., Any]] | None:
    try:
        from torch.onnx._internal.torchscript_exporter import utils
    except ImportError:
        return None
    running = getattr(utils, "_get_example_outputs", None)
    return None if running is None else (utils, running)


def reason(error: Exception) -> str:
    """torch's reason in one line, with the user's file and line where torch names them."""
    place = user_frame(error)
    return first_sentence(error) + (f" ({place[0]}, line {place[1]})" if place else "")
