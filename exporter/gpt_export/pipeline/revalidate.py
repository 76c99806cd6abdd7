"""A published artifact against its source, found from the manifest or named by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest, has_manifest
from gpt_export.artifact.onnx_model import read_model
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, SourceError
from gpt_export.gate.foreign.validate import validate_file
from gpt_export.gate.report import ParityReport
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline.published_source import published_source
from gpt_export.pipeline.strangers import validate_against
from gpt_export.progress import OnStage, ignore
from gpt_export.sources.names import known_names, read_source

DEFAULT = GateSettings()


def revalidate(
    folder: Path,
    settings: GateSettings = DEFAULT,
    *,
    against: str | None = None,
    config_file: Path | None = None,
    heads: int | None = None,
    weights: Path | None = None,
    adapter: str | Path | None = None,
    base: Path | None = None,
    lora_alpha: float | None = None,
    on_stage: OnStage = ignore,
) -> ParityReport:
    """The report on the artifact in `folder`; texts, seed and limits are those of its export unless others are given.

    Raises:
        ArtifactError: the artifact is damaged, or was made from a source of other sizes.
        SourceError: the manifest does not suffice to make the source again, and `against` is None.
    """
    artifact = Artifact.open(folder)
    manifest = artifact.manifest
    record, export = manifest.source, manifest.export
    if against is None and record.get("kind") != "seeded":
        raise SourceError(
            f"{folder} was made from {_origin(record)}, which its manifest cannot rebuild; name it with --against"
            + (f" and {record['weights']} with --weights" if "weights" in record else "")
        )
    name = against or str(record["name"])
    if against is None and name not in known_names():
        raise SourceError(
            f"{folder} was made from {name!r}, which this gpt-export does not know; name a source with --against"
        )
    on_stage("read the source")
    if has_manifest(Path(name)):
        source, _ = published_source(Artifact.open(name))
    else:
        source = read_source(
            name,
            seed=int(record.get("seed", export["seed"])),
            config_file=config_file,
            heads=heads,
            weights=weights,
            adapter=adapter,
            base=base,
            lora_alpha=lora_alpha,
            cached=_cached(manifest),
        )
    return validate_against(artifact, source, settings.completed(export), on_stage=on_stage)


def revalidate_file(
    path: Path,
    settings: GateSettings = DEFAULT,
    *,
    against: str | None,
    config_file: Path | None = None,
    heads: int | None = None,
    weights: Path | None = None,
    adapter: str | Path | None = None,
    base: Path | None = None,
    lora_alpha: float | None = None,
    roles: tuple[str, ...] = (),
    on_stage: OnStage = ignore,
) -> ParityReport:
    """The report on an `.onnx` file of any origin, see `gpt_export.gate.foreign.validate`.

    Args:
        roles: what inputs and outputs mean, as `NAME=ROLE`, where it cannot be guessed.

    Raises:
        SourceError: `against` is None: the file does not say what it was made from.
        ArtifactError: the file is missing or cannot be loaded.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; name an artifact folder or an .onnx file")
    if path.suffix != ".onnx":
        try:
            read_model(path)
        except ArtifactError as error:
            raise ArtifactError(f"{path} is no ONNX file; name an artifact folder or an .onnx file") from error
    if against is None:
        raise SourceError(f"{path} does not say what it was made from; name the source with --against")
    on_stage("read the source")
    if has_manifest(Path(against)):
        source, _ = published_source(Artifact.open(against))
    else:
        source = read_source(
            against,
            config_file=config_file,
            heads=heads,
            weights=weights,
            adapter=adapter,
            base=base,
            lora_alpha=lora_alpha,
        )
    return validate_file(path, source, settings, roles=roles, on_stage=on_stage)


def _cached(manifest: Manifest) -> bool:
    return all(variant["cache"] is not None for variant in manifest.variants.values())


def _origin(record: Any) -> str:
    return str(record.get("factory") or record.get("name") or "another source")
