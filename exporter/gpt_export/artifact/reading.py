"""An artifact folder to read from: open, verify."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.manifest import Manifest, read_manifest
from gpt_export.errors import ArtifactError


@dataclass(frozen=True, slots=True, repr=False)
class Artifact:
    """A folder and its manifest."""

    folder: Path
    manifest: Manifest

    def __repr__(self) -> str:
        """The line of `print` in angle brackets: a manifest is pages long."""
        return f"<Artifact {self}>"

    def __str__(self) -> str:
        """What it is and where, what it was judged against and how far off it is, in one line."""
        parity, model = self.manifest.parity, self.manifest.model
        variants = ", ".join(self.manifest.variants) or "TorchScript"
        if parity is None:
            verdict = "not compared with anything"
        else:
            positions = sum(int(figures["positions"]) for figures in parity["targets"].values())
            verdict = f"{'passed' if parity['passed'] else 'FAILED'} at {positions} positions"
            verdict += f" against {model['judged_against']}" if "judged_against" in model else ""
        return f"{self.folder}: {self.manifest.name} in {variants}, {self.size_bytes() / 1e6:.1f} MB, {verdict}"

    @classmethod
    def open(cls, folder: str | Path) -> Artifact:
        """The artifact in `folder`; only its manifest is read.

        Raises:
            ArtifactError: the folder has no manifest of ours that can be read.
        """
        folder = Path(folder)
        return cls(folder, read_manifest(folder))

    def verify(self, paths: Collection[str] | None = None) -> None:
        """Compares size and SHA-256 of the files at `paths`, all of them if left out, with the manifest.

        Raises:
            ArtifactError: a file is missing, truncated or altered; the message names all of them.
        """
        chosen = self.manifest.files if paths is None else paths
        faults = [fault for path in sorted(chosen) if (fault := self._fault(path))]
        if faults:
            raise ArtifactError(f"{self.folder} is damaged: {'; '.join(faults)}; export it again or fetch a fresh copy")

    def variant_name(self, variant: str | None = None) -> str:
        """`variant`, or where none is named the first there is: fp32, else fp16, int8, int4.

        Raises:
            ArtifactError: the artifact does not have that variant, or has none.
        """
        known = self.manifest.variants
        if variant is None and known:
            return next(iter(known))
        self.variant_path(variant or "fp32")
        return variant or "fp32"

    def variant_path(self, variant: str) -> Path:
        """The `.onnx` file of a variant.

        Raises:
            ArtifactError: the artifact does not have that variant.
        """
        known = self.manifest.variants
        if variant not in known:
            have = f"it has {', '.join(known)}" if known else "it has none, only TorchScript"
            raise ArtifactError(f"{self.folder} has no variant {variant!r}; {have}")
        return self.folder / str(known[variant]["path"])

    def size_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(int(entry["size_bytes"]) for entry in self.manifest.files.values())

    def _fault(self, relative: str) -> str | None:
        path, expected = self.folder / relative, self.manifest.files[relative]
        try:
            size = path.stat().st_size
            if size != expected["size_bytes"]:
                return f"{relative} has {size} bytes, not {expected['size_bytes']}"
            if sha256_of(path) != expected["sha256"]:
                return f"{relative} was altered (its SHA-256 differs)"
        except FileNotFoundError:
            return f"{relative} is missing"
        except OSError as error:
            return f"{relative} cannot be read ({error.strerror})"
        return None
