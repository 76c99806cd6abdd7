"""An artifact's folder to a server that has its page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ServeError
from gpt_export.serving.packages import find_packages
from gpt_export.serving.server import SiteServer
from gpt_export.serving.site import Site, make_site

USUAL_PORT = 8000


@contextmanager
def open_server(
    folder: Path, *, port: int | None = 0, variant: str | None = None, node_modules: Path | None = None
) -> Iterator[tuple[SiteServer, str]]:
    """A server that is bound and not yet serving, and the URL to open; closed at the end.

    Args:
        port: the one to use, 0 for any that is free; None is `USUAL_PORT`, or any where that is taken.

    Raises:
        ArtifactError: there is no such artifact, it lacks the variant, or a file of it cannot be served.
        ServeError: a package of the page is not installed, or the port cannot be used.
    """
    artifact = Artifact.open(folder)
    artifact.variant_name(variant)
    site = make_site(artifact, find_packages(node_modules))
    with _bound(site, port) as server:
        yield server, server.url + (f"?{urlencode({'variant': variant})}" if variant else "")


def _bound(site: Site, port: int | None) -> SiteServer:
    if port is not None:
        return SiteServer(site, port)
    try:
        return SiteServer(site, USUAL_PORT)
    except ServeError:
        return SiteServer(site, 0)
