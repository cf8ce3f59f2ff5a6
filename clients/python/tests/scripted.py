"""An HTTP server that gives the answers it was told to, in order, and keeps
what it was asked. Standard library only."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Deque, Dict, List, Union
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Dict[str, str]
    headers: Dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Answer:
    """An answer to give: a body that is no text or bytes goes as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body).encode()


class Silence:
    """Give no answer until the server is closed."""


class Hangup:
    """Close the connection without an answer."""


Step = Union[Answer, Silence, Hangup]


class Server:
    """Listens on a free port from start to close.

    Steps are taken from script; when that is empty, from otherwise.
    """

    def __init__(self) -> None:
        self.script: Deque[Step] = deque()
        self.otherwise: Callable[[Asked], Step] = lambda asked: Answer({"detail": "no step left"}, 500)
        self.asked: List[Asked] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _next(self, asked: Asked) -> Step:
        with self._lock:
            self.asked.append(asked)
            if self.script:
                return self.script.popleft()
        return self.otherwise(asked)

    def _handler(server) -> type:  # self is the handler, below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Without it headers and body go as two packets, the second delayed.
            wbufsize = -1

            def setup(self) -> None:
                super().setup()
                with server._lock:
                    server.connections += 1

            def answer(self) -> None:
                url = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, url.path, dict(parse_qsl(url.query, True)), headers, raw)
                step = server._next(asked)
                if isinstance(step, Answer):
                    content = step.encode()
                    self.send_response(step.status)
                    for name, value in step.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    self.wfile.flush()
                    return
                if isinstance(step, Silence):
                    server._closing.wait()
                self.close_connection = True

            do_GET = answer
            do_POST = answer
            do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
