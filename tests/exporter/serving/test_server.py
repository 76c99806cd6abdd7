"""The server of the page: what it gives, and everything it does not."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, ServeError
from gpt_export.serving.packages import NEEDED
from gpt_export.serving.server import SiteServer
from gpt_export.serving.site import make_site

from tests.exporter.serving.conftest import Served, parse

SECRET = b"not to be read by anyone"


def test_page_artifact_and_packages_are_served_whole(served: Served) -> None:
    page = served.ask("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"app.js" in page.body
    for name in ("app.js", "worker.js", "model.js", "folder.js", "text.js", "sampling.js", "view.js", "style.css"):
        assert served.ask(f"/{name}").status == 200, name
    for name in (MANIFEST_NAME, *Artifact.open(served.artifact).manifest.files):
        assert served.ask(f"/artifact/{name}").body == (served.artifact / name).read_bytes(), name
    for name in NEEDED:
        assert served.ask(f"/node_modules/{name}").body == name.encode()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.mjs", "text/javascript; charset=utf-8"),
        ("/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/artifact/manifest.json", "application/json"),
        ("/artifact/onnx/model.onnx", "application/octet-stream"),
    ],
)
def test_types_are_those_that_browsers_insist_on(served: Served, path: str, kind: str) -> None:
    headers = served.ask(path).headers
    assert headers["Content-Type"] == kind
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_every_answer_isolates_the_page_and_keeps_it_to_this_server(served: Served) -> None:
    for path in ("/", "/worker.js", "/artifact/manifest.json", "/nothing"):
        headers = served.ask(path).headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    policy = served.ask("/").headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy


def test_nothing_of_an_artifact_runs_as_script(served: Served) -> None:
    headers = served.ask("/artifact/report.html").headers
    assert headers["Content-Security-Policy"].startswith("sandbox;")
    assert "script-src" not in headers["Content-Security-Policy"]


def climbing() -> list[bytes]:
    """Ways to write a path out of the folder."""
    ups = [b"..", b"%2e%2e", b"%2E.", b".%2e", b"%252e%252e", b"%c0%ae%c0%ae", b"%ef%bc%8e%ef%bc%8e", b"....", b"..;"]
    slashes = [b"/", b"%2f", b"\\", b"%5c", b"%252f", b"//", b"/./", b"%c0%af"]
    return [
        prefix + slash.join([up] * depth + [b"secret.txt"])
        for prefix in (b"/", b"/artifact/", b"/artifact/onnx/", b"/node_modules/")
        for up in ups
        for slash in slashes
        for depth in (1, 2)
    ]


def test_no_spelling_of_a_path_leads_out_of_the_folder(served: Served) -> None:
    for folder in (served.artifact.parent, served.artifact):
        (folder / "secret.txt").write_bytes(SECRET)
    for target in climbing():
        answer = served.ask(target)
        assert answer.status in (400, 404), target
        assert SECRET not in answer.body


@pytest.mark.parametrize(
    "target",
    [
        "/artifact",
        "/artifact/",
        "/artifact/onnx",
        "/artifact/onnx/",
        "/artifact/secret.txt",
        "/artifact/%00manifest.json",
        "/artifact/manifest.json%00",
        "/artifact/manifest.json/",
        "/artifact/./manifest.json",
        "/artifact/onnx/../manifest.json",
        "/artifact/MANIFEST.JSON",
        "/artifact//etc/passwd",
        "/%2fetc%2fpasswd",
        "/etc/passwd",
        "/proc/self/environ",
        "/package.json",
        "/package-lock.json",
        "/node_modules/",
        "/node_modules/onnxruntime-web/package.json",
        "/artifact/%ff%fe",
        "/artifact/%zz",
        "/~root/.ssh/id_rsa",
        "/C:/windows/win.ini",
        "/file:///etc/passwd",
    ],
)
def test_what_is_not_on_the_list_is_not_there(served: Served, target: str) -> None:
    (served.artifact / "secret.txt").write_bytes(SECRET)
    assert served.ask(target).status == 404


def test_a_path_may_be_percent_encoded_once(served: Served) -> None:
    # The control of the two above: such paths are refused for where they lead, not for how they are written.
    assert served.ask("/artifact/%6danifest%2ejson?x=../..#y").status == 200
    assert served.ask("/artifact/%256danifest.json").status == 404


@pytest.mark.parametrize("target", ["http://evil.example/", "evil.example:80", "*", "?", "artifact/manifest.json"])
def test_a_target_that_is_no_path_is_refused(served: Served, target: str) -> None:
    assert served.ask(target).status == 400


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost.evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "127.0.0.1:{port}@evil.example",
        "evil.example@127.0.0.1:{port}",
        "0.0.0.0:{port}",
        "localhost:1",
        "localhost",
        "[::]:{port}",
        "127.0.0.1:{port}, evil.example",
        "",
    ],
)
def test_a_name_that_is_not_loopbacks_is_refused(served: Served, host: str) -> None:
    answer = served.ask("/artifact/manifest.json", host=host.format(port=served.server.server_port))
    assert answer.status == 421
    assert b"format" not in answer.body


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LocalHost:{port}"])
def test_loopbacks_names_are_served(served: Served, host: str) -> None:
    assert served.ask("/", host=host.format(port=served.server.server_port)).status == 200


@pytest.mark.parametrize("hosts", [b"", b"Host: {h}\r\nHost: evil.example\r\n"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_request_has_one_host(served: Served, hosts: bytes, version: bytes) -> None:
    sent = b"GET / " + version + b"\r\n" + hosts.replace(b"{h}", served.host.encode()) + b"\r\n"
    assert parse(served.raw(sent)).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_written(served: Served, method: str) -> None:
    answer = served.ask("/artifact/manifest.json", method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_an_unknown_method_is_refused(served: Served) -> None:
    assert served.ask("/", method="PROPFIND").status == 501


def test_a_refused_method_ends_the_connection_so_that_its_body_is_no_request(served: Served) -> None:
    inner = f"GET /artifact/manifest.json HTTP/1.1\r\nHost: {served.host}\r\nConnection: close\r\n\r\n"
    for method in ("POST", "GET"):
        head = f"{method} / HTTP/1.1\r\nHost: {served.host}\r\nContent-Length: {len(inner)}\r\n\r\n"
        answer = served.raw((head + inner).encode())
        assert answer.count(b"HTTP/1.1 ") == 1, method
        assert parse(answer).status in (400, 405)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1 more\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost",
    ],
    ids=["empty", "tls", "word", "version 0.9", "version", "four words", "long path", "many headers", "cut off"],
)
def test_nonsense_brings_no_page_and_stops_nothing(served: Served, request_bytes: bytes) -> None:
    answer = served.raw(request_bytes, shut=True)
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert served.ask("/").status == 200


def test_a_file_that_became_a_link_out_of_the_folder_is_not_served(served: Served, tmp_path: Path) -> None:
    secret = tmp_path / "outside.txt"
    secret.write_bytes(SECRET)
    target = served.artifact / "parity.json"
    target.unlink()
    target.symlink_to(secret)
    assert served.ask("/artifact/parity.json").status == 404
    target.unlink()
    target.symlink_to("onnx/model.onnx")  # a link inside the folder may be
    assert served.ask("/artifact/parity.json").status == 200


def test_a_folder_that_became_a_link_out_is_not_followed(served: Served, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_bytes(SECRET)
    (served.artifact / "onnx").rename(tmp_path / "moved")
    (served.artifact / "onnx").symlink_to(outside)
    assert served.ask("/artifact/onnx/model.onnx").status == 404


def test_a_pipe_or_folder_in_a_files_place_is_not_served(served: Served) -> None:
    target = served.artifact / "parity.json"
    target.unlink()
    os.mkfifo(target)
    assert served.ask("/artifact/parity.json").status == 404
    target.unlink()
    target.mkdir()
    assert served.ask("/artifact/parity.json").status == 404


def test_an_artifact_with_a_link_out_is_not_served_at_all(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_bytes(SECRET)
    (tiny / "parity.json").unlink()
    (tiny / "parity.json").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(ArtifactError, match=r"parity\.json cannot be served: it leads out of the folder"):
        make_site(Artifact.open(tiny), {})


def test_a_served_folder_may_be_named_by_a_link(serve: Callable[[Path], Served], tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny)
    assert serve(tmp_path / "link").ask("/artifact/manifest.json").status == 200


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, None),
        ("bytes=-10", 206, -10, None),
        ("bytes=5-99999999", 206, 5, None),
        ("bytes=-99999999", 206, 0, None),
        ("bytes=0-1,3-4", 200, 0, None),
        ("bytes=9-5", 200, 0, None),
        ("bytes=a-b", 200, 0, None),
        ("bytes=-", 200, 0, None),
        ("bytes=\u00b2-", 200, 0, None),
        ("lines=0-9", 200, 0, None),
        ("bytes=" + "9" * 5000 + "-", 200, 0, None),
    ],
)
def test_ranges_are_those_of_the_specification(
    served: Served, asked: str, status: int, start: int, stop: int | None
) -> None:
    whole = (served.artifact / "onnx/model.onnx").read_bytes()
    answer = served.ask("/artifact/onnx/model.onnx", f"Range: {asked}")
    assert answer.status == status
    assert answer.body == whole[start:stop]
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    if status == 206:
        first = start % len(whole)
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(served: Served, asked: str) -> None:
    assert served.ask("/artifact/onnx/model.onnx", f"Range: {asked}").status == 416


def test_a_range_of_another_state_of_the_file_brings_the_whole(served: Served) -> None:
    tag = served.ask("/artifact/parity.json").headers["ETag"]
    assert served.ask("/artifact/parity.json", "Range: bytes=0-3", f"If-Range: {tag}").status == 206
    assert served.ask("/artifact/parity.json", "Range: bytes=0-3", 'If-Range: "other"').status == 200


def test_what_the_browser_has_is_not_sent_again_until_it_changes(served: Served) -> None:
    tag = served.ask("/artifact/parity.json").headers["ETag"]
    answer = served.ask("/artifact/parity.json", f"If-None-Match: {tag}")
    assert (answer.status, answer.body) == (304, b"")
    (served.artifact / "parity.json").write_text("{}")
    assert served.ask("/artifact/parity.json", f"If-None-Match: {tag}").body == b"{}"


def test_head_says_what_get_would(served: Served) -> None:
    get, head = (served.ask("/artifact/onnx/model.onnx", method=method) for method in ("GET", "HEAD"))
    assert head.body == b""
    assert head.status == 200
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))


def test_a_connection_serves_several_requests(served: Served) -> None:
    one = f"GET /artifact/parity.json HTTP/1.1\r\nHost: {served.host}\r\n"
    answer = served.raw((f"{one}\r\n" * 2 + f"{one}Connection: close\r\n\r\n").encode())
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_large_file_is_streamed_and_never_in_memory(serve: Callable[[Path], Served], tiny: Path) -> None:
    size = 1 << 32
    served = serve(tiny)
    before_mb = _resident_mb()
    with (tiny / "parity.json").open("r+b") as file:
        file.truncate(size)  # sparse: no disk, but 4 GB to whoever reads it whole
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=5) as connection:
        connection.sendall(f"GET /artifact/parity.json HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
        found = connection.recv(1 << 16)
    assert f"Content-Length: {size}".encode() in found
    assert served.ask("/artifact/parity.json", f"Range: bytes={size - 4}-").body == bytes(4)
    assert _resident_mb() - before_mb < 500


def test_the_server_is_on_loopback_alone(served: Served) -> None:
    assert served.server.socket.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_told_in_a_sentence(served: Served) -> None:
    with pytest.raises(ServeError, match=rf"port {served.server.server_port} .* --port 0"):
        SiteServer({}, served.server.server_port)


def test_an_ordinary_client_reads_it(served: Served) -> None:
    with urllib.request.urlopen(f"{served.server.url}artifact/manifest.json") as answer:
        assert answer.read() == (served.artifact / "manifest.json").read_bytes()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
