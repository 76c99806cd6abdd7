from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.serving.packages import NEEDED
from gpt_export.serving.server import SiteServer
from gpt_export.serving.site import make_site


@dataclass(frozen=True)
class Answer:
    """What came back on a socket."""

    status: int
    headers: Message
    body: bytes


@pytest.fixture
def node_modules(tmp_path: Path) -> Path:
    """Stand-ins for the page's packages; their contents are their names."""
    folder = tmp_path / "node_modules"
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@dataclass
class Served:
    """A running server of an artifact, spoken to byte by byte."""

    server: SiteServer
    artifact: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def raw(self, request: bytes, *, shut: bool = False) -> bytes:
        """All bytes that these bytes bring until the server closes or rests for a moment."""
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=5) as connection:
            connection.sendall(request)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            while piece := connection.recv(1 << 16):
                found += piece
            return found

    def ask(self, target: str | bytes, *headers: str, method: str = "GET", host: str | None = None) -> Answer:
        """The answer to one request. The target is sent as it is."""
        path = target if isinstance(target, bytes) else target.encode("latin-1")
        lines = [f"Host: {self.host if host is None else host}", *headers, "Connection: close", "", ""]
        return parse(self.raw(method.encode() + b" " + path + b" HTTP/1.1\r\n" + "\r\n".join(lines).encode("latin-1")))


def parse(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, _, headers = head.partition(b"\r\n")
    return Answer(int(first.split()[1]), message_from_bytes(headers), body)


@pytest.fixture
def serve(node_modules: Path) -> Iterator[object]:
    """Serves an artifact's folder in a thread."""
    running: list[tuple[SiteServer, threading.Thread]] = []

    def start(folder: Path) -> Served:
        packages = {name: node_modules / name for name in NEEDED}
        server = SiteServer(make_site(Artifact.open(folder), packages), 0)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((server, thread))
        return Served(server, folder)

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def served(serve, tiny: Path) -> Served:  # type: ignore[no-untyped-def]
    """A served artifact that the test may change."""
    return serve(tiny)
