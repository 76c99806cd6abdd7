"""The sockets: a read-only HTTP server on 127.0.0.1 for one site."""

from __future__ import annotations

import logging
import os
import socket
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

from gpt_export.errors import ServeError
from gpt_export.serving.answer import (
    ALWAYS,
    METHODS,
    RefusedError,
    check_alone,
    check_host,
    entity_tag,
    find,
    unchanged,
    wanted,
)
from gpt_export.serving.connections import IDLE_S, Connections
from gpt_export.serving.site import Resource, Site

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"


class SiteServer(ThreadingHTTPServer):
    """Serves a site until it is closed; `url` is its front page."""

    daemon_threads = True
    request_queue_size = 64  # of five, as the library has it, a page's burst would wait a second for the sixth

    def __init__(self, site: Site, port: int) -> None:
        """Binds the port, a free one for 0.

        Raises:
            ServeError: the port is taken, or may not be used.
        """
        self.site = site
        self.connections = Connections()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise ServeError(
                f"port {port} of {ADDRESS} cannot be used: {error.strerror}; pass another, or --port 0 for a free one"
            ) from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def server_bind(self) -> None:
        """Binds without looking up the machine's name, which may ask the network.

        The address is taken though connections of a server that has just ended are still being closed.
        """
        if os.name == "posix":  # on Windows the option would share a port that another program listens on
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection; it is closed where there is none."""
        del client_address
        return self.connections.admit(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        self.connections.forget(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Ends connections that have taken too long; called between the requests, twice a second."""
        self.connections.end_overdue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs what went wrong on one connection; the others go on."""
        del request
        logger.debug("the connection from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection. Names and signatures are the standard library's."""

    server: SiteServer
    protocol_version = "HTTP/1.1"
    server_version = "gpt-export"
    sys_version = ""
    timeout = IDLE_S

    def handle_one_request(self) -> None:
        self.server.connections.waits(self.connection)
        try:
            self.rfile.peek(1)  # type: ignore[attr-defined] # a BufferedReader, says socketserver
        except (ConnectionResetError, TimeoutError):
            self.close_connection = True
            return
        self.server.connections.asks(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        try:
            self._check()
            resource = find(self.server.site, self.path)
            with self._opened(resource) as file:
                self._send(resource, file)
        except RefusedError as refused:
            self.send_error(refused.status)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def _check(self) -> None:
        headers: Message = self.headers
        if self.request_version == "HTTP/0.9":  # its answers have no headers, so none that keep the page to itself
            raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        check_host(headers, self.server.server_port)
        check_alone(headers)

    @staticmethod
    def _opened(resource: Resource) -> BinaryIO:
        try:
            return resource.open()
        except OSError as error:  # it was there when the server started
            raise RefusedError(HTTPStatus.NOT_FOUND) from error

    def _send(self, resource: Resource, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        size, tag = status.st_size, entity_tag(status)
        if unchanged(self.headers, tag):
            self._start(HTTPStatus.NOT_MODIFIED, resource, tag)
            return
        part = wanted(self.headers, size, tag)
        if part is None:
            start, count = 0, size
            self._start(HTTPStatus.OK, resource, tag, {"Content-Length": str(size)})
        else:
            start, count = part.start, part.count
            lengths = {"Content-Length": str(count), "Content-Range": part.header()}
            self._start(HTTPStatus.PARTIAL_CONTENT, resource, tag, lengths)
        if self.command == "HEAD" or not count:
            return
        self.server.connections.answers(self.connection, count)
        if self.connection.sendfile(file, start, count) < count:  # the file has shrunk: do not go on as if it had not
            self.close_connection = True

    def _start(self, status: HTTPStatus, resource: Resource, tag: str, lengths: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", resource.content_type)
        self.send_header("Content-Security-Policy", resource.policy)
        self.send_header("ETag", tag)
        self.send_header("Accept-Ranges", "bytes")
        for name, value in (lengths or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def end_headers(self) -> None:
        """Adds what every answer has, the refusals too."""
        for name, value in ALWAYS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal: its status as plain text, and the end of the connection."""
        status = HTTPStatus(code)
        del message, explain  # they may quote the request
        self.log_error("code %d", status)
        body = f"{status.value} {status.phrase}\n".encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(METHODS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests to the log, as the library does all its telling."""
        logger.debug("%s %s", self.address_string(), format % args)
