"""evaluate_many: order, concurrency, errors."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any, Iterator, List, Tuple

import pytest
from scripted import Answer, Asked, Server, Step

from repl_client import EvaluateCodeResponse, EvaluateRequest, ReplClient, ReplServerError


def request(number: int) -> EvaluateRequest:
    return {"code": str(number), "entry_point": "f", "io_cases": []}


def graded(asked: Asked) -> Step:
    """Answers with the code, so that a result tells whose it is."""
    return Answer({"passed": True, "case_results": [], "error": asked.body["code"]})


def test_results_come_in_the_order_of_the_requests(server: Server) -> None:
    # The first is answered when four that came after it are.
    after = threading.Semaphore(0)

    def answer(asked: Asked) -> Step:
        if asked.body["code"] == "0":
            for _ in range(4):
                assert after.acquire(timeout=30)
        else:
            after.release()
        return graded(asked)

    server.otherwise = answer

    async def main() -> List[Any]:
        async with ReplClient(server.url) as client:
            return [r.error async for r in client.evaluate_many(map(request, range(40)), concurrency=3)]

    assert asyncio.run(main()) == [str(n) for n in range(40)]
    ids = [asked.body["id"] for asked in server.asked]
    assert len(set(ids)) == 40 and uuid.UUID(ids[0]).version == 4


class Counting(ReplClient):
    """Grades without a server, and counts how many are at it."""

    now = most = 0

    async def evaluate_code(self, *args: Any, **arguments: Any) -> EvaluateCodeResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(10):  # let all others start that may
            await asyncio.sleep(0)
        self.now -= 1
        return EvaluateCodeResponse(passed=True, case_results=[])


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_as_many_at_a_time_as_asked(concurrency: int) -> None:
    async def main() -> Tuple[int, int]:
        async with Counting("http://127.0.0.1:1") as client:
            results = [r async for r in client.evaluate_many(map(request, range(30)), concurrency=concurrency)]
            return len(results), client.most

    assert asyncio.run(main()) == (30, min(30, concurrency))


def test_requests_are_read_as_needed(server: Server) -> None:
    server.otherwise = graded
    read = 0

    def endless() -> Iterator[EvaluateRequest]:
        nonlocal read
        while True:
            yield request(read)
            read += 1

    async def main() -> None:
        async with ReplClient(server.url) as client:
            results = client.evaluate_many(endless(), concurrency=2)
            for number in range(5):
                assert (await results.__anext__()).error == str(number)
            await results.aclose()

    asyncio.run(main())
    assert read < 20


def failing(asked: Asked) -> Step:
    return Answer({"detail": "no"}, 400) if asked.body["code"] == "2" else graded(asked)


def test_an_error_in_the_place_of_its_result(server: Server) -> None:
    server.otherwise = failing

    async def main() -> List[Any]:
        async with ReplClient(server.url) as client:
            many = client.evaluate_many(map(request, range(5)), return_exceptions=True)
            return [r.error if isinstance(r, EvaluateCodeResponse) else r async for r in many]

    results = asyncio.run(main())
    error = results.pop(2)
    assert isinstance(error, ReplServerError) and error.status_code == 400
    assert results == ["0", "1", "3", "4"]


def test_an_error_raised_in_its_place(server: Server) -> None:
    server.otherwise = failing
    seen: List[Any] = []

    async def main() -> None:
        async with ReplClient(server.url) as client:
            async for result in client.evaluate_many(map(request, range(5))):
                seen.append(result.error)

    with pytest.raises(ReplServerError, match="400"):
        asyncio.run(main())
    assert seen == ["0", "1"]


def test_all_arguments_are_passed_on(server: Server) -> None:
    server.otherwise = graded
    full: EvaluateRequest = {
        "code": "0",
        "entry_point": "f",
        "io_cases": [],
        "id": "mine",
        "timeout": 5,
        "limits": {"wall_s": 1},
        "isolation": "process",
        "stop_on_failure": True,
        "request_id": "r",
    }

    async def main() -> None:
        async with ReplClient(server.url) as client:
            async for _ in client.evaluate_many([full]):
                pass

    asyncio.run(main())
    (asked,) = server.asked
    assert asked.headers["x-request-id"] == "r"
    assert asked.body == {
        "id": "mine",
        "code": "0",
        "entry_point": "f",
        "io_cases": [],
        "limits": {"wall_s": 1},
        "isolation": "process",
        "stop_on_failure": True,
    }


def test_concurrency_out_of_range() -> None:
    with pytest.raises(ValueError, match="concurrency: want 1 or more, got 0"):
        ReplClient("http://127.0.0.1:1").evaluate_many([], concurrency=0)


def test_nothing_to_do(server: Server) -> None:
    async def main() -> List[Any]:
        async with ReplClient(server.url) as client:
            return [r async for r in client.evaluate_many([])]

    assert asyncio.run(main()) == []
