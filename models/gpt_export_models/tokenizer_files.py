"""Which files of a folder are a tokenizer's, and what they say of it beside its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.regular_files import JSON_BYTES, read_text

WHOLE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"
"""The folder that transformers 5 keeps templates by other names in."""
PAIRS = ((VOCABULARY, MERGES), ("encoder.json", "vocab.bpe"))
"""GPT-2's vocabulary and merges, as Hugging Face calls them and as OpenAI did."""

_NAMED = re.compile(
    r"(special_tokens_map|added_tokens|generation_config|encoder|vocab|tekken|normalizer)[\w.-]*\.json"
    r"|(?!tokenized)(?!.*checkpoint)\w*tokenizer[\w.-]*\.(json|model|txt)|merges\.txt|vocab\.(txt|bpe)"
    r"|[\w.-]*chat_template[\w.-]*\.(jinja|json)|(spiece|spm|sentencepiece)[\w.-]*\.(model|vocab)|[\w.-]+\.tiktoken"
)
"""A tokenizer's file says so in its name, whichever version of its library has written it. Never a text."""
_TEMPLATE_OF_A_NAME = re.compile(rf"{TEMPLATES}/[\w.-]+\.jinja")
_VOCABULARIES = re.compile(
    r"tokenizer\.json|(encoder|vocab)\.json|vocab\.(txt|bpe)|tekken\.json|\S+\.model|\S+\.tiktoken|meta\.pkl"
)
"""Of those, and of what is not read, what holds the tokens themselves."""
_GPT2 = re.compile(r"GPT2Tokenizer(Fast)?")


def is_tokenizers(name: str) -> bool:
    """Whether a file of this name in a model's folder belongs to a tokenizer, or says how to generate."""
    return _NAMED.fullmatch(name) is not None or _TEMPLATE_OF_A_NAME.fullmatch(name) is not None


def tokenizer_files_in(folder: Path) -> tuple[Path, ...]:
    """The files in `folder` that belong to a tokenizer, or say how to generate, by name."""
    return tuple(file for file in sorted(folder.iterdir()) if is_tokenizers(file.name) and file.is_file())


def templates_in(folder: Path) -> tuple[Path, ...]:
    """The templates of conversations by other names that lie in a folder of their own in `folder`."""
    found = sorted((folder / TEMPLATES).glob("*.jinja"))
    return tuple(file for file in found if file.is_file() and is_tokenizers(f"{TEMPLATES}/{file.name}"))


def place_of(file: Path) -> str:
    """Where a file that belongs to a tokenizer lies in a model's folder, with slashes."""
    apart = file.parent.name == TEMPLATES and file.suffix == ".jinja"
    return f"{TEMPLATES}/{file.name}" if apart else file.name


def vocabularies_in(folder: Path) -> tuple[str, ...]:
    """The names of files in `folder` that hold a tokenizer's vocabulary, read or not."""
    return tuple(
        file.name for file in sorted(folder.iterdir()) if file.is_file() and _VOCABULARIES.fullmatch(file.name)
    )


def stated_class(folder: Path) -> str | None:
    """The class of tokenizer that the folder's settings name."""
    for name in (SETTINGS, "config.json"):
        if (folder / name).is_file():
            found = read_json_object(folder / name).get("tokenizer_class")
            if isinstance(found, str) and found:
                return found
    return None


def is_gpt2s(tokenizer_class: str) -> bool:
    """Whether that is GPT-2's class."""
    return _GPT2.fullmatch(tokenizer_class) is not None


def settings_in(files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The objects in the files of settings, by the names of the files, the first to be believed first.

    Raises:
        CheckpointError: one is no JSON object.
    """
    return [read_json_object(files[name]) for name in (SETTINGS, SPECIAL) if name in files]


def token_of(settings: Iterable[Mapping[str, Any]], name: str) -> str | None:
    """The text of a token such as `eos_token` in the settings."""
    return next((text for values in settings if (text := content_of(values.get(name)))), None)


def content_of(token: object) -> str | None:
    """The text of a token that is given as a string, or as an object with `content`."""
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else None


def chat_template_in(files: Mapping[str, Path]) -> str | None:
    """The template of a conversation, from the file of its own or from the settings; None if there is none.

    Raises:
        CheckpointError: it is no text, or there are several and none is the default.
    """
    if TEMPLATE in files:
        try:
            return read_text(files[TEMPLATE], largest=JSON_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{files[TEMPLATE]} is no readable UTF-8 text ({error}); save it again") from error
    for values in settings_in(files):
        found = values.get("chat_template")
        if isinstance(found, list):  # several by name
            named = {item.get("name"): item.get("template") for item in found if isinstance(item, Mapping)}
            found = named.get("default")
        if isinstance(found, str):
            return found
    return None
