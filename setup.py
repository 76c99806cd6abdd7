"""The README as a package index shows it; everything else is in pyproject.toml.

An index has no files beside the README, so relative links would be dead there. They become absolute below the
`Repository` of `[project.urls]`, or, as long as none is stated, the names of files in the source archive.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
_PICTURE = re.compile(r"<picture>.*?</picture>\n*|^!\[[^]]*\]\((?!https?:)[^)]*\)\n*", re.DOTALL | re.MULTILINE)
_PICTURE_LINK = re.compile(r"(!\[[^]]*\]\(|\b(?:src|srcset)=\")(?!https?:)([^)\"]+)")
_LINK = re.compile(r"\[([^]]+)\]\((?!https?:|#)([^)]+)\)")


def description_of(readme: str, repository: str | None) -> str:
    """`readme` without relative links: absolute ones below `repository`, or else names without pictures."""
    if repository is None:
        return _LINK.sub(r"`\2`", _PICTURE.sub("", readme)).rstrip() + (
            "\n\nThe pages that are named here, `docs/` and the rest, are in the source archive.\n"
        )
    root = repository.rstrip("/")
    readme = _PICTURE_LINK.sub(rf"\g<1>{root}/raw/HEAD/\g<2>", readme)
    return _LINK.sub(rf"[\1]({root}/blob/HEAD/\2)", readme)


def stated_repository(pyproject: Path) -> str | None:
    """The `Repository` of `[project.urls]`, None if it is not stated."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    address: str | None = project.get("urls", {}).get("Repository")
    return address


if __name__ == "__main__":
    setup(
        long_description=description_of(
            (HERE / "README.md").read_text(encoding="utf-8"), stated_repository(HERE / "pyproject.toml")
        ),
        long_description_content_type="text/markdown",
    )
