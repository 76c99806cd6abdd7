"""What an artifact is, as sorted JSON: versioned, with a digest of its own, free of paths, times and hosts.

The model's files have a digest of their own, which is the same whatever the processor and its cores. What was measured,
and so the manifest that sums it up, has the rounding of the machine that it was measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from gpt_export_models.json_files import parse_json
from gpt_export_models.regular_files import OBJECT_BYTES, read_text

from gpt_export.artifact.manifest_schema import schema_fault
from gpt_export.artifact.variant_names import ORDER
from gpt_export.errors import ArtifactError

MANIFEST_NAME = "manifest.json"
FORMAT = "gpt-export"
FORMAT_VERSION = 1
MODEL_DIGEST = "model_digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of `manifest.json`; every field is made of JSON values."""

    name: str
    source: Mapping[str, Any]
    """Where the weights came from: `kind`, and what that kind needs to be made again."""
    export: Mapping[str, Any]
    """The settings that decided the bytes: opset, texts, cases, gate, seed."""
    model: Mapping[str, Any]
    """`vocab_size`, `context_length`, `turns` (lengths at which a cached graph does something new), `tokenizer`
    (`gpt2`, `carried` for files of the artifact, null for ids alone), the model's own `configuration` where it has one,
    and `notes` on what was assumed of it."""
    variants: Mapping[str, Any]
    """By variant: `path`, `opset`, `ir_version`, `minimum_onnxruntime`, `inputs`, `outputs`, the
    shape of the `cache` or null, and of each of its `weights` the `source` and whether it is `transposed`. In the order
    of `ORDER`, whatever order they are given in."""
    libraries: Mapping[str, str]
    parity: Mapping[str, Any] | None
    """The parity summary; None only before validation."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`sha256` and `size_bytes` of every other file, by its path in the artifact."""
    measured: Sequence[str] | None = None
    """Paths of the files that tell what was measured; all others are the model's. None in an artifact that was written
    before the two were told apart."""

    def __post_init__(self) -> None:
        names = (*ORDER, *sorted(self.variants.keys() - set(ORDER)))
        object.__setattr__(self, "variants", {name: self.variants[name] for name in names if name in self.variants})

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field, the format and its version, `model_digest`, and `digest`, the SHA-256 of all."""
        body: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        body |= {"format": FORMAT, "format_version": FORMAT_VERSION, MODEL_DIGEST: self.model_digest}
        if self.measured is None:
            del body["measured"], body[MODEL_DIGEST]
        return body | {"digest": _digest(body)}

    @property
    def model_digest(self) -> str | None:
        """SHA-256 of what `sha256sum` says of the model's files in order of their paths; None where `measured` is."""
        if self.measured is None:
            return None
        model = sorted(self.files.keys() - set(self.measured))
        return hashlib.sha256("".join(f"{self.files[path]['sha256']}  {path}\n" for path in model).encode()).hexdigest()

    def to_json(self) -> str:
        """`to_dict` as the file has it."""
        return dump(self.to_dict())

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """The manifest that `to_json` wrote.

        Raises:
            ArtifactError: it is not JSON, not a manifest, of a newer version, or was edited.
        """
        try:
            body = parse_json(text, finite=True)
        except ValueError as error:
            raise ArtifactError(f"{where} is not JSON ({error}); export the artifact again") from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ArtifactError(f"{where} is not a manifest of gpt-export; name an artifact folder")
        version = body.get("format_version")
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{where} has format version {version!r}, this gpt-export reads {FORMAT_VERSION}; "
                "install the gpt-export that wrote it, or export again"
            )
        found = body.pop("digest", None)
        if found != _digest(body):
            raise ArtifactError(f"{where} was edited: its digest does not fit; export the artifact again")
        names = {item.name for item in fields(cls)}
        stated = body.pop(MODEL_DIGEST, None)
        if stated is None:
            body.setdefault("measured", None)
        if body.keys() - {"format", "format_version"} != names:
            raise ArtifactError(f"{where} lacks or adds fields, it needs {sorted(names)}; export the artifact again")
        if fault := schema_fault(body):
            raise ArtifactError(f"{where} is no manifest as gpt-export writes it: {fault}; export the artifact again")
        manifest = cls(**{name: body[name] for name in names})
        for path in manifest.files:
            check_relative(path, where)
        for path in (str(variant["path"]) for variant in manifest.variants.values()):
            check_relative(path, where)
            if path not in manifest.files:
                raise ArtifactError(f"{where} has no hash of {path!r}; do not use this artifact")
        if stated != manifest.model_digest:
            raise ArtifactError(f"{where} was edited: its {MODEL_DIGEST} does not fit; export the artifact again")
        return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in `folder`.

    Raises:
        ArtifactError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        text = read_text(path, largest=OBJECT_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.exists():
            raise ArtifactError(f"{folder} does not exist; name an artifact folder") from error
        raise ArtifactError(
            f"{folder} is not an artifact: it has no {MANIFEST_NAME}; name an artifact folder"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}; export the artifact again") from error
    return Manifest.from_json(text, str(path))


def has_manifest(folder: Path) -> bool:
    """Whether `folder` holds a manifest of ours, of whatever version; other tools' files of that name are not."""
    try:
        body = json.loads(read_text(folder / MANIFEST_NAME, largest=OBJECT_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("format") == FORMAT


def check_relative(path: str, where: str) -> None:
    """Refuses a path that leads out of the artifact.

    Raises:
        ArtifactError: the path is absolute or climbs.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ArtifactError(f"{where} names {path!r}, which lies outside the artifact; do not use this artifact")


def dump(values: Mapping[str, Any]) -> str:
    """JSON as all files of an artifact have it: sorted keys, two spaces, newline at the end; NaN and Inf refused."""
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
