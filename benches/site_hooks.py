"""What MkDocs is told beside mkdocs.yml: links that lead out of docs/ become the names of what they lead to.

On the site there is nothing behind them; where the docs are read in the repository they stay links.
"""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>(?:\.\./)+(?!.*\.md[)#])[^)]*|(?:\.\./)+examples/[^)]*)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links to files of the repository as text."""
    depth = page.file.src_uri.count("/")
    outside = "../" * (depth + 1)

    def named(found: re.Match[str]) -> str:
        return found["text"] if found["target"].startswith(outside) else found[0]

    return _OUTSIDE.sub(named, markdown)
