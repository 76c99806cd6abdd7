"""`gpt-export serve` as a process: what it prints, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.serving.packages import NEEDED
from gpt_export.serving.server import SiteServer
from gpt_export.serving.site import make_site

from tests.conftest import GPT_EXPORT, Run


@pytest.fixture
def node_modules(tmp_path: Path) -> Path:
    folder = tmp_path / "node_modules"
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


@contextmanager
def serving(*args: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command and the first line that it printed."""
    command = [GPT_EXPORT, "serve", *map(str, args), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_address_is_printed_and_serves_the_artifact(tiny: Path, node_modules: Path) -> None:
    with serving(tiny, "--node-modules", node_modules) as (_, url), urllib.request.urlopen(url) as page:
        assert b"<html" in page.read()
        with urllib.request.urlopen(f"{url}artifact/manifest.json") as manifest:
            assert manifest.read() == (tiny / "manifest.json").read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}artifact/nothing")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_it_ends_quietly_when_it_is_told_to(tiny: Path, node_modules: Path, number: int, code: int) -> None:
    with serving(tiny, "--node-modules", node_modules) as (process, url):
        address = url.removeprefix("http://").strip("/").split(":")
        with socket.create_connection((address[0], int(address[1]))):  # also while a browser holds a connection
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err


def test_json_is_one_value_on_stdout(tiny: Path, node_modules: Path) -> None:
    with serving(tiny, "--node-modules", node_modules, "--json", "--variant", "fp32") as (process, first):
        assert process.stdout is not None
        while not first.endswith("}"):
            first += process.stdout.readline().rstrip()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert out == ""
    found = json.loads(first)
    assert found["artifact"] == str(tiny)
    assert found["url"].startswith("http://127.0.0.1:")
    assert found["url"].endswith("/?variant=fp32")


def test_a_taken_port_is_a_sentence(tiny: Path, node_modules: Path, cli: Callable[..., Run]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run = cli("serve", tiny, "--port", port, "--no-browser", "--node-modules", node_modules)
    run.refused(1, f"port {port}", "--port 0")


def test_it_starts_again_at_once_while_a_tab_is_open(tiny: Path, node_modules: Path) -> None:
    packages = {name: node_modules / name for name in NEEDED}
    with SiteServer(make_site(Artifact.open(tiny), packages), 0) as first:
        port = first.server_port
        with socket.create_connection(("127.0.0.1", port)) as tab:
            connection, _ = first.get_request()
            connection.close()  # the server ends first, so the connection lingers on its side
            tab.recv(1)
    with SiteServer(make_site(Artifact.open(tiny), packages), port) as again:
        assert again.server_port == port


def test_the_command_starts_again_at_once_while_tabs_are_open(tiny: Path, node_modules: Path) -> None:
    with serving(tiny, "--node-modules", node_modules) as (process, url):
        host, port = url.removeprefix("http://").strip("/").split(":")
        tabs = [socket.create_connection((host, int(port))) for _ in range(3)]
        for tab in tabs[1:]:
            tab.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            assert tab.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    packages = {name: node_modules / name for name in NEEDED}
    with SiteServer(make_site(Artifact.open(tiny), packages), int(port)) as again:
        assert again.server_port == int(port)
    for tab in tabs:
        tab.close()


def test_the_usual_port_gives_way_to_a_free_one(
    tiny: Path, node_modules: Path, cli: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_export.serving.server.SiteServer.serve_forever", lambda _: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr("gpt_export.serving.open.USUAL_PORT", other.getsockname()[1])
        run = cli("serve", tiny, "--no-browser", "--node-modules", node_modules)
        assert run.code == 0, run.err
        assert str(other.getsockname()[1]) not in run.out
    assert "tiny in fp32, on this machine alone; Ctrl-C ends it." in run.err


def test_missing_packages_are_a_sentence(tiny: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    run = cli("serve", tiny, "--port", 0, "--no-browser", "--node-modules", tmp_path / "none")
    run.refused(1, "onnxruntime-web", "npm install")


def test_an_unknown_variant_or_artifact_is_a_sentence(tiny: Path, tmp_path: Path, cli: Callable[..., Run]) -> None:
    cli("serve", tiny, "--variant", "int3", "--no-browser").refused(1, "no variant 'int3'", "fp32")
    cli("serve", tmp_path / "none", "--no-browser").refused(1, "none does not exist")


def test_a_browser_is_opened_only_where_there_is_a_screen(
    tiny: Path, node_modules: Path, cli: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("gpt_export.serving.server.SiteServer.serve_forever", lambda _: None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    given = ("serve", tiny, "--port", 0, "--node-modules", node_modules)
    assert cli(*given).code == 0
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert cli(*given, "--no-browser").code == 0
    assert opened == []
    run = cli(*given)
    assert opened == [run.out.strip()]
