"""Every link of the README and the docs leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.first_hour.test_docs import PAGES, ROOT

_LINK = re.compile(r"(?:\]\(|\b(?:src|srcset)=\")(?!https?:|mailto:)([^)\s\"]+)")


def dead_links(page: Path, text: str) -> Iterator[str]:
    """What `text`, the content of `page`, links to and is not there."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in _LINK.findall(prose):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            yield target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and MkDocs make of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {_slug(heading) for heading in headings}


def _slug(heading: str) -> str:
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
    kept = "".join(char for char in unicodedata.normalize("NFKD", plain).lower() if char.isalnum() or char in " -_")
    return re.sub(r"\s", "-", kept.strip())


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    assert list(dead_links(page, page.read_text("utf-8"))) == []


def test_a_dead_link_is_found() -> None:
    text = "[a](nothing.md) [b](#nothing) [c](docs/cli.md#nothing) [d](docs/cli.md#exit-codes) [e](https://x.y)"
    assert list(dead_links(ROOT / "README.md", text)) == ["nothing.md", "#nothing", "docs/cli.md#nothing"]


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r"^ *- (?:\w[^:]*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}
