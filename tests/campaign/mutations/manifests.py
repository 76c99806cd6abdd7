"""Manifests whose digests are right: what somebody makes who has read how they are computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt_export.artifact import manifest as manifests

from tests.campaign.mutations import Op, json_values

NAME = manifests.MANIFEST_NAME


def seal(folder: Path, body: dict[str, Any]) -> None:
    """Writes `body` with digests that fit it, as far as its values have any."""
    if isinstance(body, dict):
        body.pop("digest", None)
        if manifests.MODEL_DIGEST in body:
            try:
                names = sorted(body["files"].keys() - set(body["measured"]))
                text = "".join(f"{body['files'][name]['sha256']}  {name}\n" for name in names)
                body[manifests.MODEL_DIGEST] = hashlib.sha256(text.encode()).hexdigest()
            except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
                pass  # of such values there is none, and the reader is to say so
        body["digest"] = manifests._digest(body)
    (folder / NAME).write_text(json.dumps(body), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The manifest's values."""
    body: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    return body


def with_right_hashes(change: Op) -> Op:
    """`change`, after which size and hash of every file are what the manifest says."""

    def changed(folder: Path, at: float, what: float) -> None:
        change(folder, at, what)
        body = read(folder)
        for name, entry in body["files"].items():
            data = (folder / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        seal(folder, body)

    return changed


def manifest_ops() -> dict[str, Op]:
    """The edits of JSON in the manifest, and links in place of its files."""

    def op(name: str) -> Op:
        def change(folder: Path, at: float, what: float) -> None:
            seal(folder, json_values.edit(read(folder), name, at, what))

        return change

    def linked(target: Callable[[Path], str]) -> Op:
        def change(folder: Path, at: float, what: float) -> None:
            del what
            names = sorted(read(folder)["files"])
            path = folder / names[int(at * len(names))]
            path.unlink()
            path.symlink_to(target(folder))

        return change

    links = {
        "link: out": lambda _: "/etc/hostname",
        "link: device": lambda _: "/dev/zero",
        "link: self": lambda f: str(f),
    }
    return {f"json: {name}": op(name) for name in json_values.EDITS} | {
        name: linked(target) for name, target in links.items()
    }
