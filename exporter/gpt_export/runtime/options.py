"""How onnxruntime is told to run a graph: the one place where its options are set and a session is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime as ort

from gpt_export.artifact.local_functions import check_functions
from gpt_export.errors import ArtifactError

CPU = ("CPUExecutionProvider",)


def session_options(
    *,
    threads: int | None = None,
    prepack: bool = True,
    saturating: bool = False,
    as_written: bool = False,
    silent: bool = False,
    external_data: Path | None = None,
) -> ort.SessionOptions:
    """Options of a session.

    Args:
        threads: threads within an operator; onnxruntime's choice if left out.
        prepack: let onnxruntime rearrange weights for speed, at the price of a second copy of them in memory.
        saturating: whether int8 products may saturate on this processor, so that a wider sum has to be asked for.
        as_written: run the nodes as they stand, without onnxruntime's own optimisations.
        silent: log not even errors, for a caller that says itself what they mean.
        external_data: the folder of the external data of a model that is given as bytes.
    """
    options: Any = ort.SessionOptions()
    options.log_severity_level = 4 if silent else 3  # a warning of onnxruntime's is no news to the application
    if threads is not None:
        options.intra_op_num_threads = threads
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if saturating:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if external_data is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(external_data.resolve())
        )
    chosen: ort.SessionOptions = options
    return chosen


def start_session(
    path: Path, options: ort.SessionOptions, providers: Sequence[str] = CPU, *, remedy: str
) -> ort.InferenceSession:
    """The session on the file at `path`.

    Raises:
        ArtifactError: onnxruntime refuses the file; the message ends with `remedy`. Or its functions have no end.
    """
    check_functions(path)
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = " ".join(str(error).split())
        raise ArtifactError(f"onnxruntime cannot load {path}: {reason}; {remedy}") from error


@contextmanager
def running() -> Iterator[None]:
    """What is done here with a session may fail in its own way for every graph.

    Raises:
        ArtifactError: onnxruntime has loaded the graph and cannot run it.
    """
    try:
        yield
    except Exception as error:  # as above
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"onnxruntime cannot run the model: {reason}; look at it with gpt-export lint, or export it again"
        ) from error
