"""A server of the page in this process, and one hostile request to it."""

from __future__ import annotations

import functools
import re
import socket
import threading

from tests.campaign.seeds import SECRET

SECONDS = 5.0


@functools.cache
def _server() -> int:
    """The port of the server, which runs as long as the process."""
    from gpt_export.artifact.reading import Artifact
    from gpt_export.serving.server import SiteServer
    from gpt_export.serving.site import make_site

    from tests.campaign import forks

    server = SiteServer(make_site(Artifact.open(forks.SEEDS / "artifact"), {}), 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server.server_port


def _answer(port: int, request: bytes) -> bytes:
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                found += piece
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
    return found


def ask(request: bytes) -> str:
    """What is wrong with the server's answer, or with the server after it; empty if nothing is."""
    port = _server()
    try:
        found = _answer(port, request.replace(b"{port}", str(port).encode()))
        after = _answer(port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    except TimeoutError:
        return "no answer"
    if SECRET in found or b"root:" in found:
        return "a secret"
    if found and not found.startswith(b"HTTP/1.") and not re.fullmatch(rb"[45]\d\d [\w ]+\n", found):  # to HTTP/0.9
        return "an answer that is none"
    if found.startswith(b"HTTP/1.1 5") and not found.startswith((b"HTTP/1.1 501", b"HTTP/1.1 505")):
        return "an error of the server's own"
    return "" if after.startswith(b"HTTP/1.1 200") else "the server has ended"
