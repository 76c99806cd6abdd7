"""The other end of a `LocalCrew`: an interpreter that gets its setup, then rows, and sends results."""

from __future__ import annotations

import pickle
import signal
from multiprocessing.connection import Connection

from gpt_export.errors import GptExportError
from gpt_export.lifeline import end_with_parent


def serve(descriptor: int) -> None:
    """Works until the other side closes the connection, as it also does when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    end_with_parent()  # in the middle of its rows as well
    connection = Connection(descriptor)
    try:
        _serve(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _serve(connection: Connection) -> None:
    try:
        work = pickle.loads(connection.recv_bytes()).open()
    except GptExportError as error:
        connection.send(("refused", error))
        return
    connection.send(("ready", None))
    while True:
        rows = connection.recv()
        try:
            answer = ("done", work(rows))
        except (MemoryError, Exception) as error:  # whatever it is, it is this document's, and is told with its name
            answer = ("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        connection.send(answer)
