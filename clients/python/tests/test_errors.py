"""What a call raises when there is no good answer, and what is sent again."""

from __future__ import annotations

import asyncio
import math
import pickle
import socket
import threading
import time
from email.utils import formatdate
from typing import Any, Dict, List

import pytest
from asking import Call, ask
from scripted import Answer, Asked, Hangup, Server, Silence, Step

from repl_client import ReplClient, ReplServerError

RAN = Answer({"stdout": "o", "stderr": "", "id": "s"})
RUN: Call = lambda c: c.run("s", "x")


def fail(server: Server, call: Call, *steps: Step, **options: Any) -> ReplServerError:
    with pytest.raises(ReplServerError) as caught:
        ask(server, call, *steps, **options)
    return caught.value


METHODS: Dict[str, Call] = {
    "create_session": lambda c: c.create_session(),
    "fork_session": lambda c: c.fork_session("s"),
    "write_file": lambda c: c.write_file("s", "a", "x"),
    "read_file": lambda c: c.read_file("s", "a"),
    "read_bytes": lambda c: c.read_bytes("s", "a"),
    "delete_file": lambda c: c.delete_file("s", "a"),
    "rename_file": lambda c: c.rename_file("s", "a", "b"),
    "run": RUN,
    "evaluate_code": lambda c: c.evaluate_code("s", "x", "f", []),
}


# Every documented key, but a number where a text or a boolean belongs.
KEYS = "success id rel_path old_path new_path content stdout stderr new_id passed".split()
NUMBERS: Dict[str, Any] = {**dict.fromkeys(KEYS, 1), "case_results": []}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_raises(server: Server, method: str) -> None:
    err = fail(server, METHODS[method], Answer({"detail": "Invalid path"}, 400, {"X-Request-ID": "r"}))
    name = "write_file" if method == "create_session" else method
    assert str(err) == err.message == f"{name}: the server answered 400: Invalid path"
    assert (err.status_code, err.details, err.request_id) == (400, "Invalid path", "r")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [{}, [], "oops", b"\xff", NUMBERS, "[" * 100_000])
def test_answers_of_another_shape(server: Server, method: str, body: Any) -> None:
    err = fail(server, METHODS[method], Answer(body))
    assert err.status_code == 200
    assert "documented shape" in err.message
    assert isinstance(err.details, str) and err.details


@pytest.mark.parametrize(
    "results",
    [{}, [1], [None], [{}], [{"passed": "yes"}], [{"passed": True}, {"passed": 1}]],
)
def test_case_results_of_another_shape(server: Server, results: Any) -> None:
    body = {"passed": True, "case_results": results, "error": None}
    err = fail(server, METHODS["evaluate_code"], Answer(body))
    assert err.status_code == 200
    assert "documented shape" in err.message


@pytest.mark.parametrize(
    "status, body, details",
    [
        (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, [{"loc": ["body"], "msg": "no"}]),
        (500, "Internal Server Error", "Internal Server Error"),
        (502, {"error": "proxy"}, {"error": "proxy"}),
        (404, {"detail": None}, None),
        (503, "", ""),
        (201, {"detail": "made"}, "made"),
        (204, "", ""),
        (307, "", ""),
    ],
)
def test_any_status_but_200(server: Server, status: int, body: Any, details: Any) -> None:
    err = fail(server, RUN, Answer(body, status))
    assert (err.status_code, err.details, err.retry_after) == (status, details, None)


def test_a_long_answer_is_cut_in_the_message(server: Server) -> None:
    err = fail(server, RUN, Answer({"detail": "x" * 9000}, 400))
    assert len(err.message) < 600
    assert err.details == "x" * 9000


def test_no_answer_in_time(server: Server) -> None:
    # Sent again it would get a good answer.
    err = fail(server, RUN, Silence(), RAN, timeout=0.05, retries=3)
    assert err.status_code == 408
    assert err.message == "run: no answer within 0.05 s"
    assert isinstance(err.details, str) and err.details


def test_the_call_s_timeout_counts(server: Server) -> None:
    err = fail(server, lambda c: c.evaluate_code("s", "x", "f", [], timeout=0.05), Silence(), timeout=60)
    assert err.status_code == 408


def test_no_free_connection_in_time(server: Server) -> None:
    taken = threading.Event()

    def silent(asked: Asked) -> Step:
        taken.set()
        return Silence()

    server.otherwise = silent

    async def second(client: ReplClient) -> None:
        first = asyncio.create_task(client.run("s", "x", timeout=math.inf))
        await asyncio.to_thread(taken.wait)
        try:
            await client.run("s", "x", timeout=0.05)
        finally:
            first.cancel()

    assert fail(server, second, max_connections=1).status_code == 408
    assert len(server.asked) == 1


def test_a_connection_that_breaks_is_not_tried_again(server: Server) -> None:
    err = fail(server, RUN, Hangup(), RAN, retries=3)
    assert err.status_code is None
    assert isinstance(err.details, str) and err.details
    assert len(server.asked) == 1


def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> ReplServerError:
            async with ReplClient(url) as client:
                with pytest.raises(ReplServerError):
                    await client.ping()
                with pytest.raises(ReplServerError) as caught:
                    await client.run("s", "x")
                return caught.value

        err = asyncio.run(main())
    assert err.status_code is None
    assert err.message.startswith("run: no answer: ")


def test_a_url_without_a_scheme() -> None:
    async def main() -> None:
        async with ReplClient("localhost:6000") as client:
            await client.run("s", "x")

    with pytest.raises(ReplServerError, match="run: no answer"):
        asyncio.run(main())


def test_errors_can_be_pickled() -> None:
    err = ReplServerError("m", 429, ["d"], retry_after=2.0, request_id="r")
    back = pickle.loads(pickle.dumps(err))
    assert str(back) == "m"
    assert vars(back) == vars(err)


# --- retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> List[float]:
    """The seconds that were waited, without waiting them."""
    seen: List[float] = []

    async def sleep(seconds: float) -> None:
        seen.append(seconds)

    monkeypatch.setattr("repl_client.exchange.sleep", sleep)
    return seen


def busy(after: str, status: int = 429) -> Answer:
    return Answer({"detail": "busy"}, status, {"Retry-After": after})


@pytest.mark.parametrize(
    "method, status", [("run", 429), ("evaluate_code", 429), ("evaluate_code", 503), ("write_file", 503)]
)
def test_sent_again_after_the_time_that_the_server_says(
    server: Server, waits: List[float], method: str, status: int
) -> None:
    good = Answer({**RAN.body, "passed": True, "case_results": [], "success": True, "rel_path": "a"})
    ask(server, METHODS[method], busy("2", status), busy("1", status), good, retries=2)
    assert waits == [2, 1]
    assert len({asked.raw for asked in server.asked}) == 1


def test_a_date_to_wait_for(server: Server, waits: List[float]) -> None:
    past, later = formatdate(0, usegmt=True), formatdate(time.time() + 100, usegmt=True)
    ask(server, RUN, busy(past), busy(later), RAN, retries=2)
    assert waits[0] == 0
    assert 10 < waits[1] <= 100


def test_not_sent_again_unless_asked_to(server: Server, waits: List[float]) -> None:
    err = fail(server, RUN, busy("2"), RAN)
    assert (err.status_code, err.retry_after, waits, len(server.asked)) == (429, 2, [], 1)


def test_given_up_after_the_last_retry(server: Server, waits: List[float]) -> None:
    err = fail(server, RUN, busy("1"), busy("1"), busy("3"), RAN, retries=2)
    assert (err.status_code, err.retry_after, waits, len(server.asked)) == (429, 3, [1, 1], 3)


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"detail": "busy"}, 429),
        busy("soon"),
        busy("-1"),
        busy("121"),
        busy("1", 503),  # the command may have run
        busy("1", 500),
        busy("1", 504),
        busy("1", 400),
    ],
)
def test_not_sent_again(server: Server, waits: List[float], answer: Answer) -> None:
    err = fail(server, RUN, answer, RAN, retries=5)
    assert (err.status_code, waits, len(server.asked)) == (answer.status, [], 1)
