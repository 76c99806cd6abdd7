"""What the targets ask of an artifact: its manifest, and the tokenizer's files that came with the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt_export_models.carried_tokenizer import CarriedTokenizer, open_carried
from gpt_export_models.config import GPTConfig
from gpt_export_models.json_files import read_json_object
from gpt_export_models.tokenizer import END_OF_TEXT_ID, Gpt2Tokenizer
from gpt_export_models.tokenizer_files import SETTINGS, SPECIAL, is_tokenizers

from gpt_export.artifact.manifest import Manifest
from gpt_export.runtime.signature import CacheShape, LayerCache

SKELETON = "dummy-124m"
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Facts:
    """An artifact as the targets see it. What is carried is never written again, only completed."""

    manifest: Manifest
    carried: Mapping[str, Path]
    """By name, the files that came with the checkpoint."""

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Facts:
        """The facts on the artifact in `folder`, of which `manifest` lists only what the export itself wrote."""
        return cls(manifest, {name: folder / name for name in manifest.files if is_tokenizers(name)})

    @cached_property
    def config(self) -> GPTConfig | None:
        """The configuration of a GPT of ours, None for the skeleton and for modules: no consumer knows those."""
        source, found = self.manifest.source, self.manifest.model["configuration"]
        known = source.get("kind") in ("checkpoint", "seeded") and source.get("name") != SKELETON
        return GPTConfig.from_dict(found) if known and found and self.manifest.variants else None

    @cached_property
    def decoder(self) -> LayerCache | None:
        """Keys and values of a layer, where all are alike and the graph gives logits: what consumers can be told."""
        if not self.cached or self.default is None or self.manifest.source.get("name") == SKELETON:
            return None
        layers = set(CacheShape.from_dict(self.default["cache"]).layers)
        layer = layers.pop()
        return None if layers or layer.key_dim != layer.value_dim else layer

    @property
    def n_layers(self) -> int:
        """Pairs of keys and values in the cache; 0 without one."""
        return 0 if self.default is None or not self.cached else CacheShape.from_dict(self.default["cache"]).n_layers

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """What the source says of its module: Hugging Face's own keys where the source is a folder of transformers."""
        found: Mapping[str, Any] = self.manifest.model["configuration"]
        return found

    @property
    def name(self) -> str:
        """The artifact's name."""
        return self.manifest.name

    @property
    def folder_name(self) -> str:
        """The name as a folder's, and as part of a URL, wherever it came from."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name).strip("-.") or "model"

    @property
    def vocab_size(self) -> int:
        """Entries of the logits, padding of the vocabulary included."""
        return int(self.manifest.model["vocab_size"])

    @property
    def context_length(self) -> int:
        """The longest sequence."""
        return int(self.manifest.model["context_length"])

    @property
    def variants(self) -> dict[str, Mapping[str, Any]]:
        """The variants by name, the one that consumers should take first at the head."""
        return dict(self.manifest.variants)

    @property
    def default(self) -> Mapping[str, Any] | None:
        """The variant at the head."""
        return next(iter(self.variants.values()), None)

    def files_of(self, variant: str) -> tuple[str, ...]:
        """Paths in the artifact of a variant's graph, and of its external data if there is any."""
        path = str(self.manifest.variants[variant]["path"])
        return tuple(name for name in (path, f"{path}_data") if name in self.manifest.files)

    @property
    def cached(self) -> bool:
        """Whether the graphs have a key-value cache."""
        return self.default is not None and self.default["cache"] is not None

    @property
    def _is_known(self) -> bool:
        return self.config is not None or self.decoder is not None

    @property
    def has_gpt2_tokenizer(self) -> bool:
        """Whether the tokenizer is the one of the embedded vocabulary."""
        return self._is_known and self.manifest.model["tokenizer"] == Gpt2Tokenizer.name

    @cached_property
    def carried_tokenizer(self) -> CarriedTokenizer | None:
        """The checkpoint's own tokenizer, if the model uses it."""
        if not self._is_known or self.manifest.model["tokenizer"] != CarriedTokenizer.name:
            return None
        return open_carried(list(self.carried.values()), self.vocab_size)

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end a text: those of a carried generation_config.json, else the tokenizer's; often one."""
        found = self._carried_values(GENERATION).get("eos_token_id")
        stated = found if isinstance(found, list) else [found]
        if ids := tuple(value for value in stated if isinstance(value, int) and 0 <= value < self.vocab_size):
            return ids
        if self.has_gpt2_tokenizer:
            return (END_OF_TEXT_ID,)
        end = self.carried_tokenizer.end_of_text_id if self.carried_tokenizer else None
        return () if end is None else (end,)

    @property
    def end_id(self) -> int | None:
        """The first of `end_ids`."""
        return next(iter(self.end_ids), None)

    @cached_property
    def start_id(self) -> int | None:
        """The id that begins a text, which for GPT-2 is the one that ends the text before."""
        if self.carried_tokenizer:
            for values in map(self._carried_values, (SETTINGS, SPECIAL)):
                token = values.get("bos_token")
                text = token.get("content") if isinstance(token, Mapping) else token
                if isinstance(text, str) and (found := self.carried_tokenizer.special_id(text)) is not None:
                    return found
        return self.end_id

    def _carried_values(self, name: str) -> Mapping[str, Any]:
        return read_json_object(self.carried[name]) if name in self.carried else {}
