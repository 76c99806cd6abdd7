"""An artifact against a module that was not its source: other names for the same weights, or another model."""

from __future__ import annotations

import dataclasses

from gpt_export.artifact.reading import Artifact
from gpt_export.errors import SourceError
from gpt_export.gate.foreign.validate import validate_file
from gpt_export.gate.report import ParityReport
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline.comparison import BASE, validate_artifact
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source


def validate_against(
    artifact: Artifact, source: Source, settings: GateSettings, *, on_stage: OnStage = ignore
) -> ParityReport:
    """The report on `artifact` against `source`, whatever that calls its weights.

    Where the names are the artifact's, every file is compared as at its export. Otherwise the float32 graph is
    compared as anybody's file would be: weights are found by their content, and the notes say how many were.

    Raises:
        ArtifactError: the artifact is damaged, or its sizes are not the source's.
        SourceError: the names differ, and the artifact has no float32 graph to find weights in.
    """
    manifest = artifact.manifest
    variant = manifest.variants.get(BASE) or next(iter(manifest.variants.values()), None)
    source = dataclasses.replace(
        source,
        cache=CacheShape.from_dict(variant["cache"]) if variant and variant["cache"] else None,
        context_length=int(manifest.model["context_length"]),
        turns=tuple(manifest.model.get("turns", ())),
    )
    layouts = () if variant is None else variant["weights"].values()
    if all(name in source.weights for layout in layouts for name in layout["sources"]):
        return validate_artifact(artifact, source, settings, on_stage=on_stage)
    on_stage("verify hashes")
    artifact.verify()
    if BASE not in manifest.variants:
        raise SourceError(
            f"{artifact.folder} has {', '.join(manifest.variants)} alone, whose weights are found by the names of the "
            "source that it was made from; pass that, or export fp32 as well"
        )
    report = validate_file(artifact.variant_path(BASE), source, settings, on_stage=on_stage)
    others = ", ".join(name for name in manifest.variants if name != BASE)
    note = f"{others} were not compared: the module has other names for its weights; pass the checkpoint for that"
    return dataclasses.replace(report, notes=(*report.notes, note)) if others else report
