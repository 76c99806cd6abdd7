"""Slow clients, and many: the server has bounds that no client can talk its way around."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from gpt_export.serving import connections
from gpt_export.serving.connections import MAX_CONNECTIONS, Connections

from tests.exporter.serving.conftest import Served


@contextmanager
def clients(served: Served, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, on each of which these bytes were sent."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", served.server.server_port), timeout=5))
            one.sendall(sent)
            opened.append(one)
        yield opened


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def trickle(connection: socket.socket, seconds: float) -> None:
    """Sends a byte now and then."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        connection.sendall(b"a")
        time.sleep(0.02)


def test_a_page_is_served_beside_any_number_of_open_tabs(served: Served) -> None:
    before = threading.active_count()
    with clients(served, 3 * MAX_CONNECTIONS):
        assert served.ask("/").status == 200
        wait_until(lambda: threading.active_count() - before <= MAX_CONNECTIONS)
        assert len(served.server.connections) <= MAX_CONNECTIONS
    wait_until(lambda: len(served.server.connections) == 0)


def test_clients_that_are_slow_to_ask_take_no_more_threads_than_there_are_places(served: Served) -> None:
    before = threading.active_count()
    with clients(served, MAX_CONNECTIONS, b"GET / HT"), clients(served, MAX_CONNECTIONS):
        time.sleep(0.2)
        assert threading.active_count() - before <= MAX_CONNECTIONS


def test_a_byte_now_and_then_does_not_outlive_the_deadline_of_a_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    with clients(served, 1, b"GET / HTTP/1.1\r\n") as (slow,):
        begun = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            trickle(slow, 5)
        assert time.monotonic() - begun < 3


def test_a_client_that_is_slow_to_read_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 0.3)
    monkeypatch.setattr(connections, "BYTES_A_SECOND", 1e12)
    with (served.artifact / "parity.json").open("r+b") as file:
        file.truncate(1 << 32)
    ask = f"GET /artifact/parity.json HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode()
    with clients(served, 1, ask) as (slow,):
        received, begun = 0, time.monotonic()
        while (piece := slow.recv(1000)) and time.monotonic() - begun < 5:
            received += len(piece)
            if received < 100_000:
                time.sleep(0.01)  # the rest, which is on its way already, is read at once
        assert received < 1 << 30
        assert time.monotonic() - begun < 5


def test_an_ordinary_connection_waits_for_its_next_request(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # The control: what ends a slow request does not end a connection between requests.
    monkeypatch.setattr(connections, "REQUEST_S", 0.2)
    with clients(served, 1) as (one,):
        for _ in range(2):
            one.sendall(f"HEAD / HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(1)


def test_the_longest_idle_makes_room_and_one_at_work_does_not() -> None:
    held = Connections(2)
    pairs = [socket.socketpair() for _ in range(4)]
    first, second, third, fourth = (ours for ours, _ in pairs)
    assert held.admit(first)
    assert held.admit(second)
    held.asks(first)
    assert held.admit(third)
    assert pairs[1][1].recv(1) == b""  # the second has been ended
    held.answers(third, 5)
    assert not held.admit(fourth)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
