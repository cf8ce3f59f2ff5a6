"""What each method sends, and what it makes of the documented answer."""

from __future__ import annotations

import asyncio
import base64
import math
import uuid
from typing import Any, Dict, List, Optional, Tuple

import httpx
import pytest
from asking import Call, ask
from scripted import Answer, Server

from repl_client import Limits, ReplClient, ReplServerError

CASES = [{"input": "a=2, b=3", "output": "5"}]
ADD = "def add(a, b): return a + b"
ODD: Any = ["a=1"]
GRADED = {"passed": True, "case_results": [{"passed": True, "got": 5, "new_key": [1]}], "error": None}

SENT: Dict[str, Tuple[Call, str, Any]] = {
    "write_file": (
        lambda c: c.write_file("s", "d/a.txt", "naïve 🎉"),
        "/write_file",
        {"id": "s", "rel_path": "d/a.txt", "content": "naïve 🎉"},
    ),
    "write_file half a surrogate pair": (
        lambda c: c.write_file("s", "a", "\ud800"),
        "/write_file",
        {"id": "s", "rel_path": "a", "content": "\ud800"},
    ),
    "write_file bytes": (
        lambda c: c.write_file("s", "a", b"\xff\x00"),
        "/write_file",
        {"id": "s", "rel_path": "a", "content": "/wA=", "encoding": "base64"},
    ),
    "write_file bytes, encoding said": (
        lambda c: c.write_file("s", "a", b"x", encoding="base64"),
        "/write_file",
        {"id": "s", "rel_path": "a", "content": "eA==", "encoding": "base64"},
    ),
    "write_file base64 text": (
        lambda c: c.write_file("s", "a", "eA==", encoding="base64"),
        "/write_file",
        {"id": "s", "rel_path": "a", "content": "eA==", "encoding": "base64"},
    ),
    "delete_file": (lambda c: c.delete_file("s", "a"), "/delete_file", {"id": "s", "rel_path": "a"}),
    "rename_file": (
        lambda c: c.rename_file("s", "a", "b"),
        "/rename_file",
        {"id": "s", "old_path": "a", "new_path": "b"},
    ),
    "fork_session": (lambda c: c.fork_session("s"), "/fork_session", {"id": "s"}),
    "run": (lambda c: c.run("s", "ls"), "/run", {"id": "s", "cmd": "ls"}),
    "run limits": (
        lambda c: c.run("s", "ls", limits={"wall_s": 2}),
        "/run",
        {"id": "s", "cmd": "ls", "limits": {"wall_s": 2}},
    ),
    "evaluate_code": (
        lambda c: c.evaluate_code("s", ADD, "add", CASES),
        "/evaluate_code",
        {"id": "s", "code": ADD, "entry_point": "add", "io_cases": CASES},
    ),
    "evaluate_code extras": (
        lambda c: c.evaluate_code(
            "s", ADD, "add", CASES, limits=Limits(wall_s=1.5), isolation="process", stop_on_failure=False
        ),
        "/evaluate_code",
        {
            "id": "s",
            "code": ADD,
            "entry_point": "add",
            "io_cases": CASES,
            "limits": {"wall_s": 1.5},
            "isolation": "process",
            "stop_on_failure": False,
        },
    ),
    "evaluate_code limits as a dict": (
        lambda c: c.evaluate_code("s", ADD, "add", [], limits={"memory_mb": 64}),
        "/evaluate_code",
        {"id": "s", "code": ADD, "entry_point": "add", "io_cases": [], "limits": {"memory_mb": 64}},
    ),
    "evaluate_code odd case": (
        lambda c: c.evaluate_code("s", ADD, "add", ODD),
        "/evaluate_code",
        {"id": "s", "code": ADD, "entry_point": "add", "io_cases": ["a=1"]},
    ),
}

# Answers that every POST of SENT takes: extra keys do no harm.
ANY = {
    **GRADED,
    "success": True,
    "id": "s",
    "rel_path": "a",
    "old_path": "a",
    "new_path": "b",
    "new_id": "n",
    "stdout": "",
    "stderr": "",
}


@pytest.mark.parametrize("name", SENT)
def test_post_bodies(server: Server, name: str) -> None:
    call, path, body = SENT[name]
    ask(server, call, Answer(ANY))
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", path, body)
    assert asked.headers["content-type"] == "application/json"
    assert "x-request-id" not in asked.headers


def test_text_outside_ascii_is_not_escaped(server: Server) -> None:
    ask(server, lambda c: c.write_file("s", "a", "日本"), Answer(ANY))
    assert "日本".encode() in server.asked[0].raw


@pytest.mark.parametrize(
    "encoding, query",
    [
        (None, {"id": "s", "rel_path": "d/a b&c.txt"}),
        ("base64", {"id": "s", "rel_path": "d/a b&c.txt", "encoding": "base64"}),
    ],
)
def test_read_file(server: Server, encoding: Any, query: Dict[str, str]) -> None:
    answer = Answer({"content": "eA==", "id": "s", "rel_path": "d/a b&c.txt"})
    result = ask(server, lambda c: c.read_file("s", "d/a b&c.txt", encoding=encoding), answer)
    assert result.content == "eA=="
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query) == ("GET", "/read_file", query)


def test_read_bytes(server: Server) -> None:
    data = bytes(range(256))
    answer = Answer({"content": base64.b64encode(data).decode(), "id": "s", "rel_path": "a"})
    assert ask(server, lambda c: c.read_bytes("s", "a"), answer) == data
    assert server.asked[0].query == {"id": "s", "rel_path": "a", "encoding": "base64"}


def test_read_bytes_of_a_server_without_base64(server: Server) -> None:
    answer = Answer({"content": "e*A==", "id": "s", "rel_path": "a"})
    with pytest.raises(ReplServerError, match="documented shape") as caught:
        ask(server, lambda c: c.read_bytes("s", "a"), answer)
    assert "base64" in caught.value.details


def test_bytes_are_no_utf8_text(server: Server) -> None:
    with pytest.raises(ValueError, match="bytes are written as they are"):
        ask(server, lambda c: c.write_file("s", "a", b"x", encoding="utf-8"))
    assert server.asked == []


def test_create_session(server: Server) -> None:
    id = ask(server, lambda c: c.create_session(), Answer(ANY))
    assert uuid.UUID(id).version == 4
    assert server.asked[0].path == "/write_file"
    assert server.asked[0].body == {"id": id, "rel_path": "placeholder.txt", "content": ""}


def test_fork_session(server: Server) -> None:
    assert ask(server, lambda c: c.fork_session("s"), Answer({"new_id": "n"})) == "n"


def test_run_answer(server: Server) -> None:
    body = {"stdout": "o", "stderr": "e", "id": "s", "exit_code": -9, "timed_out": False, "wall_ms": 2, "later": 1}
    result = ask(server, lambda c: c.run("s", "x"), Answer(body))
    assert (result.stdout, result.stderr, result.id) == ("o", "e", "s")
    assert (result.exit_code, result.timed_out, result.wall_ms) == (-9, False, 2.0)
    assert (result.truncated, result.cpu_ms, result.memory_kb) == (None, None, None)
    assert result.later == 1


def test_case_results_are_plain_dicts(server: Server) -> None:
    result = ask(server, lambda c: c.evaluate_code("s", ADD, "add", CASES), Answer(GRADED))
    assert result.passed is True and result.error is None
    assert result.case_results == GRADED["case_results"]
    assert type(result.case_results[0]) is dict


@pytest.mark.parametrize("method", ["run", "evaluate_code"])
def test_request_id(server: Server, method: str) -> None:
    calls: Dict[str, Call] = {
        "run": lambda c: c.run("s", "x", request_id="r-1"),
        "evaluate_code": lambda c: c.evaluate_code("s", "x", "f", [], request_id="r-1"),
    }
    ask(server, calls[method], Answer(ANY))
    assert server.asked[0].headers["x-request-id"] == "r-1"


@pytest.mark.parametrize(
    "answer, want",
    [
        (Answer("ping"), True),
        (Answer('"ping"'), True),
        (Answer("pong"), False),
    ],
)
def test_ping(server: Server, answer: Answer, want: bool) -> None:
    assert ask(server, lambda c: c.ping(), answer) is want
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/")


def test_base_url_with_a_path(server: Server) -> None:
    server.script.append(Answer("ping"))

    async def main() -> bool:
        async with ReplClient(server.url + "/grading/") as client:
            return await client.ping()

    assert asyncio.run(main())
    assert server.asked[0].path == "/grading/"


def test_calls_share_a_connection(server: Server) -> None:
    async def calls(client: ReplClient) -> None:
        for _ in range(5):
            await client.delete_file("s", "a")

    ask(server, calls, *[Answer(ANY)] * 5)
    assert len(server.asked) == 5
    assert server.connections == 1


def test_a_closed_client_is_closed() -> None:
    async def main() -> None:
        client = ReplClient("http://127.0.0.1:1")
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await client.run("s", "x")

    asyncio.run(main())


@pytest.mark.parametrize("value", [math.nan, object()])
def test_cases_that_are_no_json(server: Server, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        ask(server, lambda c: c.evaluate_code("s", "x", "f", [{"input": "", "output": value}]))
    assert server.asked == []


@pytest.mark.parametrize("options", [{"retries": -1}, {"max_connections": 0}])
def test_options_out_of_range(options: Dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: want"):
        ReplClient("http://127.0.0.1:1", **options)


RUN: Call = lambda c: c.run("s", "x")
EVALUATE: Call = lambda c: c.evaluate_code("s", "x", "f", [])
WRITE: Call = lambda c: c.write_file("s", "a", "x")


@pytest.mark.parametrize(
    "client, call, connect, read",
    [
        (None, WRITE, 10, 10),
        (None, RUN, 10, 45),
        (None, EVALUATE, 10, 180),
        (20, WRITE, 10, 20),
        (20, RUN, 10, 20),
        (20, EVALUATE, 10, 20),
        (3, EVALUATE, 3, 3),
        (20, lambda c: c.run("s", "x", timeout=60), 10, 60),
        (20, lambda c: c.evaluate_code("s", "x", "f", [], 600), 10, 600),
        (math.inf, EVALUATE, 10, None),
    ],
)
def test_timeouts(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    client: Optional[float],
    call: Call,
    connect: float,
    read: Optional[float],
) -> None:
    seen: List[Dict[str, Any]] = []
    send = httpx.AsyncClient.send

    async def spy(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return await send(self, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", spy)
    ask(server, call, Answer(ANY), timeout=client)
    assert seen == [{"connect": connect, "read": read, "write": read, "pool": read}]
