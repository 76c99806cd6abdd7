"""Requests to the page's server, as bytes in the file `request`."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.case import pick
from tests.campaign.mutations import Op

FILE = "request"
METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"PRI", b"get", b"G" * 70_000, b"CONNECT", b"\x00", b"")
TARGETS = (
    b"/", b"/artifact/manifest.json", b"/artifact/../secret", b"/%2e%2e/secret", b"/artifact/..%2f..%2fsecret",
    b"//secret", b"*",
    b"http://evil.example/", b"/artifact/onnx/model.onnx", b"/" + b"a" * 70_000, b"/%", b"/%00", b"/\xff",
    b"/?" + b"x=1&" * 3000,
    b"/artifact/\\..\\secret", b"/node_modules/../../secret", b"/artifact/onnx/..;/..;/secret",
    b"file:///etc/passwd", b"/..", b"?",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/9",
    b"",
    b"HTTP/1.1.1",
    b"HTTP/99999999999.1",
    b"HTTP/1.-1",
    b"http/1.1",
)
HEADERS = (
    b"Host: evil.example", b"Host:", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 9" * 1 + b"9" * 400,
    b"Transfer-Encoding: chunked", b"Range: bytes=0-0", b"Range: bytes=-1", b"Range: bytes=9999999999-",
    b"Range: bytes=5-1",
    b"Range: bytes=0-0,2-3", b"Range: bytes=" + b"0-1," * 3000, b"Range: lines=1-2", b'If-None-Match: "x"',
    b"If-Range: x", b"Expect: 100-continue",
    b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c", b"X: " + b"a" * 70_000, b": x", b"X", b" folded",
    b"X: \x00\xff", b"Origin: null",
    b"Cookie: " + b"a=b; " * 1000, b"Range: bytes=\xd9\xa3-\xd9\xa4", b"Range: bytes=" + b"1" * 30 + b"-",
)  # fmt: skip


def _line(part: int, values: tuple[bytes, ...]) -> Op:
    def change(folder: Path, at: float, what: float) -> None:
        del at
        path = folder / FILE
        first, _, rest = path.read_bytes().partition(b"\r\n")
        words = [*first.split(b" "), b"", b"", b""][:3]
        words[part] = pick(values, what)
        path.write_bytes(b" ".join(words) + b"\r\n" + rest)

    return change


def _header(folder: Path, at: float, what: float) -> None:
    path = folder / FILE
    lines = path.read_bytes().split(b"\r\n")
    lines.insert(1 + int(at * (len(lines) - 1)), pick(HEADERS, what))
    path.write_bytes(b"\r\n".join(lines))


def _repeat(folder: Path, at: float, what: float) -> None:
    del at
    path = folder / FILE
    path.write_bytes(path.read_bytes() * (2 + int(what * 4)))


def _many(folder: Path, at: float, what: float) -> None:
    path = folder / FILE
    first, _, rest = path.read_bytes().partition(b"\r\n")
    path.write_bytes(first + b"\r\n" + (pick(HEADERS, at)[:100] + b"\r\n") * int(what * 300) + rest)


def request_ops() -> dict[str, Op]:
    """Edits of a request: its line, its headers, and one behind the other."""
    return {
        "method": _line(0, METHODS),
        "target": _line(1, TARGETS),
        "version": _line(2, VERSIONS),
        "header": _header,
        "header again": _header,
        "headers": _many,
        "repeat": _repeat,
    }
