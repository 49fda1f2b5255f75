"""Processes that end together: a connection held open between a build and its workers.

When the build ends, however it ends, its workers see the connection close and end too,
so none of them writes on after the next build has begun. When a worker ends before the
build does, the build sees that instead of waiting for it forever.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable

ADDRESS_VARIABLE = "CELEBA_BUILD_LIFELINE"


class Lifeline:
    """The build's end: a context manager whose workers end when it does.

    Attributes:
      broken: set when a worker ended although the build goes on.
    """

    def __init__(self):
        self.broken = threading.Event()
        self._closing = False
        self._connections: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> "Lifeline":
        os.environ[ADDRESS_VARIABLE] = str(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing = True
        del os.environ[ADDRESS_VARIABLE]
        for end in (self._server, *self._connections):
            _hang_up(end)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            self._connections.append(connection)
            if self._closing:  # accepted just before the server was closed
                _hang_up(connection)
            threading.Thread(
                target=self._watch, args=(connection,), daemon=True
            ).start()

    def _watch(self, connection: socket.socket) -> None:
        farewell = _wait_for_end(connection)
        if not farewell and not self._closing:
            self.broken.set()


def hold() -> Callable[[], None]:
    """The worker's end: ends this process at once when the build is gone.

    Returns:
      what the worker calls when it has no more work: then its end is expected.
    """
    port = int(os.environ[ADDRESS_VARIABLE])
    try:
        connection = socket.create_connection(("127.0.0.1", port))
    except OSError:  # the build ended while this process started
        os._exit(1)

    def end_with_the_build() -> None:
        _wait_for_end(connection)
        os._exit(1)

    threading.Thread(target=end_with_the_build, daemon=True).start()
    return lambda: connection.sendall(b".")


def _hang_up(end: socket.socket) -> None:
    """Closes a socket at once: closing alone waits for threads that still read it."""
    with contextlib.suppress(OSError):  # the other end was faster
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _wait_for_end(connection: socket.socket) -> bool:
    """Returns, when the connection is closed, whether a farewell came before."""
    farewell = False
    try:
        while connection.recv(1):
            farewell = True
    except OSError:  # reset instead of closed: gone all the same
        pass
    return farewell
