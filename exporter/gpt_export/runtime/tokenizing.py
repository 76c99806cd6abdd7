"""The tokenizer of an artifact, from its own files. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from gpt_export_models.tokenizer import Gpt2Tokenizer, Tokenizer
from gpt_export_models.tokenizer_files import is_tokenizers

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError


def open_tokenizer(folder: str | Path, manifest: Manifest | None = None) -> Tokenizer | None:
    """The tokenizer of the artifact in `folder`, None where it is for ids alone. Its files are verified first.

    Args:
        manifest: the one to believe, as `Session.manifest`; read from the folder if left out.

    Raises:
        ArtifactError: there is no such artifact, or a file of its tokenizer is damaged.
    """
    artifact = Artifact.open(folder) if manifest is None else Artifact(Path(folder), manifest)
    name = artifact.manifest.model["tokenizer"]
    if name is None:
        return None
    if name == Gpt2Tokenizer.name:
        return Gpt2Tokenizer()
    from gpt_export_models.carried_tokenizer import CarriedTokenizer, open_carried  # an import that few artifacts need

    if name == CarriedTokenizer.name:
        files = [path for path in artifact.manifest.files if is_tokenizers(path)]
        artifact.verify(files)
        if tokenizer := open_carried(
            [artifact.folder / path for path in files], int(artifact.manifest.model["vocab_size"])
        ):
            return tokenizer
    raise ArtifactError(f"{folder} has a tokenizer {name!r} that cannot be opened; export the artifact again")
