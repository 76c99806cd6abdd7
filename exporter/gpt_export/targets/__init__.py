"""What each consumer of an artifact needs beside the graphs: one file a consumer, gathered here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gpt_export.artifact.manifest import Manifest
from gpt_export.targets import genai, huggingface, model_card
from gpt_export.targets.facts import Facts

Target = Callable[[Facts], Mapping[str, bytes]]
TARGETS: Mapping[str, Target] = {
    "huggingface": huggingface.files,
    "onnxruntime-genai": genai.files,
}
"""By consumer, a function from an artifact's facts to files of its folder, by their names."""
READERS: Mapping[str, Target] = {"model card": model_card.files}
"""What people are told, figures of the comparison among it: made of facts that hold the verdict."""


def consumer_files(folder: Path, manifest: Manifest, targets: Mapping[str, Target] = TARGETS) -> dict[str, bytes]:
    """The files that the artifact in `folder` gets for its consumers, by name. The same ones for the same artifact.

    Args:
        manifest: describes what the export itself wrote and, for `READERS`, the verdict.

    Raises:
        ValueError: two targets write a file of the same name, or one writes over the checkpoint's: a fault of ours.
    """
    facts = Facts.of(folder, manifest)
    taken = dict.fromkeys(manifest.files, "the export")
    made: dict[str, bytes] = {}
    for consumer, target in targets.items():
        for name, content in target(facts).items():
            if name in taken:
                raise ValueError(f"{consumer} would write {name}, which {taken[name]} has written")
            taken[name] = f"the target {consumer}"
            made[name] = content
    return made


def write_consumer_files(folder: Path, manifest: Manifest, targets: Mapping[str, Target] = TARGETS) -> None:
    """Writes `consumer_files` into the folder, which is still being staged; its manifest must then be made anew.

    Raises:
        FileExistsError: one of them is there already: a fault of ours.
    """
    for name, content in consumer_files(folder, manifest, targets).items():
        with (folder / name).open("xb") as file:
            file.write(content)
