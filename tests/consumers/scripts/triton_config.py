"""A config.pbtxt as Triton's own protobuf schema reads it, beside the graph that it describes. Folders on stdin."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

TYPES = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}


def told(values):
    """Names, types and dims as the configuration has them."""
    name_of = model_config_pb2.DataType.Name
    return [[value.name, name_of(value.data_type), list(value.dims)] for value in values]


def had(values):
    """The same of the graph, its dims after the first: that one is Triton's batch."""
    found = []
    for value in values:
        assert isinstance(value.shape[0], str), value.shape
        dims = [-1 if isinstance(dim, str) else dim for dim in value.shape[1:]]
        found.append([value.name, TYPES[value.type], dims])
    return found


answers = []
for folder in map(Path, json.load(sys.stdin)):
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    answers.append(
        {
            "name": config.name,
            "backend": config.backend,
            "max_batch_size": config.max_batch_size,
            "batches": config.HasField("dynamic_batching"),
            "told": [told(config.input), told(config.output)],
            "had": [had(session.get_inputs()), had(session.get_outputs())],
        }
    )
json.dump({"version": version("tritonclient"), "models": answers}, sys.stdout)
