"""What a request gets: a status, headers and a range of bytes, from its method, target and headers alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from gpt_export.serving.site import Resource, Site

METHODS = ("GET", "HEAD")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

ALWAYS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. The first two Cross-Origin ones give the page shared memory, which WebAssembly threads need; the
third keeps other sites' pages from embedding what is served here."""


class RefusedError(Exception):
    """A request that is not served; the status says why."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file: where they begin and how many there are, of `size` in all."""

    start: int
    count: int
    size: int

    def header(self) -> str:
        """As `Content-Range` writes it."""
        return f"bytes {self.start}-{self.start + self.count - 1}/{self.size}"


def check_host(headers: Message, port: int) -> None:
    """Refuses names that are not loopback's, which a foreign site may have pointed here (DNS rebinding).

    Raises:
        RefusedError: the request has no host, several, or another one than this server's.
    """
    hosts = headers.get_all("Host") or []
    if len(hosts) != 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    allowed = {f"{name}:{port}" for name in LOOPBACK_NAMES} | (set(LOOPBACK_NAMES) if port == 80 else set())
    if hosts[0].strip().lower() not in allowed:
        raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST)


def check_alone(headers: Message) -> None:
    """Refuses a request with a body: it would be read as the next request on the connection.

    Raises:
        RefusedError: the headers announce one.
    """
    if headers.get("Content-Length", "0").strip() != "0" or "Transfer-Encoding" in headers:
        raise RefusedError(HTTPStatus.BAD_REQUEST)


def find(site: Site, target: str) -> Resource:
    """The resource of a request target, percent-decoded once.

    Raises:
        RefusedError: it is no path, or none of the site's.
    """
    if not target.startswith("/"):
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    try:
        path = unquote_to_bytes(target.partition("?")[0]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(HTTPStatus.NOT_FOUND) from error
    if path not in site:
        raise RefusedError(HTTPStatus.NOT_FOUND)
    return site[path]


def entity_tag(status: os.stat_result) -> str:
    """A tag that changes when the file does."""
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


def unchanged(headers: Message, tag: str) -> bool:
    """Whether the client has the file already (RFC 9110, 13.1.2)."""
    known = headers.get("If-None-Match", "")
    return tag in (item.strip().removeprefix("W/") for item in known.split(","))


def wanted(headers: Message, size: int, tag: str) -> Slice | None:
    """The one range that is asked for (RFC 9110, 14.2), None for the whole file; several ranges count as the whole.

    Raises:
        RefusedError: it lies behind the end.
    """
    unit, _, spec = headers.get("Range", "").partition("=")
    first, dash, last = spec.strip().partition("-")
    numbers = [text for text in (first, last) if text]
    if unit.strip().lower() != "bytes" or not dash or not numbers or headers.get("If-Range", tag) != tag:
        return None
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in numbers):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if first and last and int(last) < start:
        return None
    if start > end:
        raise RefusedError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return Slice(start, end - start + 1, size)
