"""What Triton's onnxruntime backend needs to batch by itself (`AutoCompleteMaxBatch` in `onnxruntime.cc`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import TRITON, LintSettings

NO_BATCHING = rule(
    "GX431",
    Severity.WARNING,
    "Triton batches requests only when the first dim of every input and output is dynamic",
    "make the first dim the batch and dynamic, or serve with max_batch_size: 0",
    consumer=TRITON,
)
NAME = rule(
    "GX432",
    Severity.WARNING,
    "a name with characters that have to be escaped in config.pbtxt, in a URL or in a shell",
    "keep to letters, digits and _ . : / -",
    consumer=TRITON,
)
_PLAIN = re.compile(r"[\w.:/-]+", re.ASCII)


def triton(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """First dims and names of inputs and outputs."""
    for value in (*model.inputs, *model.outputs):
        if value.dims is not None and (not value.dims or isinstance(value.dims[0], int)):
            message = f"{value.name} is {value}; a dynamic first dim is expected"
            yield NO_BATCHING.found(tensor(value.name), message)
        if not _PLAIN.fullmatch(value.name):
            yield NAME.found(
                tensor(value.name), f"the name is {value.name!r}; letters, digits and _ . : / - are expected"
            )
