"""An artifact's folder to a server that has its page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from gpt_export.artifact.reading import Artifact
from gpt_export.serving.packages import find_packages
from gpt_export.serving.server import SiteServer
from gpt_export.serving.site import make_site


@contextmanager
def open_server(
    folder: Path, *, port: int = 0, variant: str | None = None, node_modules: Path | None = None
) -> Iterator[tuple[SiteServer, str]]:
    """A server that is bound and not yet serving, and the URL to open; closed at the end.

    Raises:
        ArtifactError: there is no such artifact, it lacks the variant, or a file of it cannot be served.
        ServeError: a package of the page is not installed, or the port cannot be used.
    """
    artifact = Artifact.open(folder)
    artifact.variant_path(variant or next(iter(artifact.manifest.variants), "fp32"))
    site = make_site(artifact, find_packages(node_modules))
    with SiteServer(site, port) as server:
        yield server, server.url + (f"?{urlencode({'variant': variant})}" if variant else "")
