"""Batches, asynchronous jobs, idempotency keys, API keys."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Dict, Iterator, List

import pytest
from asking import ask
from scripted import Answer, Asked, Hangup, Server, Step

from repl_client import EvaluateCodeResponse, EvaluateRequest, ReplClient, ReplServerError


def request(number: int) -> EvaluateRequest:
    return {"code": str(number), "entry_point": "f", "io_cases": []}


def lines_of(asked: Asked) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in asked.raw.splitlines()]


def answer(asked: Asked, upto: int = 1 << 30, done: bool = True) -> Answer:
    """Answers lines in reverse; the code tells whose a result is."""
    out = []
    for index, line in enumerate(lines_of(asked)[:upto]):
        if line["code"] == "3":
            out.append({"index": index, "status": 422, "detail": "no"})
        else:
            out.append({"index": index, "status": 200, "result": {"passed": True, "case_results": [], "error": line["code"]}})
    out.reverse()
    if done:
        out.append({"done": True, "count": len(out)})
    return Answer("".join(json.dumps(o) + "\n" for o in out))


def collect(server: Server, count: int, **options: Any) -> Dict[int, Any]:
    async def main() -> Dict[int, Any]:
        seen: Dict[int, Any] = {}
        async with ReplClient(server.url, api_key="k") as client:
            async for number, result in client.evaluate_batch(map(request, range(count)), **options):
                assert number not in seen
                seen[number] = result
        return seen

    return asyncio.run(main())


def check(seen: Dict[int, Any], count: int) -> None:
    assert sorted(seen) == list(range(count))
    for number, result in seen.items():
        if number == 3:
            assert isinstance(result, ReplServerError) and result.status_code == 422 and result.details == "no"
        else:
            assert isinstance(result, EvaluateCodeResponse) and result.error == str(number)


def test_batch(server: Server) -> None:
    server.otherwise = answer
    check(collect(server, 25, lines=10), 25)
    assert sorted(len(lines_of(a)) for a in server.asked) == [5, 10, 10]
    assert all(a.path == "/evaluate_batch" and a.headers["x-api-key"] == "k" for a in server.asked)


def test_batch_sends_again_what_was_not_answered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repl_client.batch._PAUSE_SECONDS", 0.01)
    steps = iter([lambda a: answer(a, 4, done=False), lambda a: Hangup(), lambda a: Answer({"detail": "full"}, 429, {"Retry-After": "0"})])

    def step(asked: Asked) -> Step:
        return next(steps, answer)(asked)

    server.otherwise = step
    check(collect(server, 10, connections=1), 10)
    assert [len(lines_of(a)) for a in server.asked] == [10, 6, 6, 6]


def test_batch_sends_again_what_a_stopping_gateway_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repl_client.batch._PAUSE_SECONDS", 0.01)
    stopping = [{"index": 0, "status": 503, "detail": "The gateway is stopping"}, {"done": False, "count": 2}]
    steps = iter([lambda a: Answer("".join(json.dumps(o) + "\n" for o in stopping))])
    server.otherwise = lambda asked: next(steps, answer)(asked)
    check(collect(server, 5, connections=1), 5)
    assert [len(lines_of(a)) for a in server.asked] == [5, 5]


def test_batch_gives_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repl_client.batch._PAUSE_SECONDS", 0.01)
    server.otherwise = lambda asked: Hangup()
    seen = collect(server, 3)
    assert len(seen) == 3 and all(isinstance(r, ReplServerError) and r.status_code is None for r in seen.values())
    server.otherwise = lambda asked: Answer({"detail": "key"}, 401)
    before = len(server.asked)
    assert all(r.status_code == 401 for r in collect(server, 3).values())
    assert len(server.asked) == before + 1


def test_batch_reads_requests_as_needed_and_can_be_left(server: Server) -> None:
    server.otherwise = answer
    read = 0

    def endless() -> Iterator[EvaluateRequest]:
        nonlocal read
        while True:
            read += 1
            yield request(read)

    async def main() -> None:
        async with ReplClient(server.url) as client:
            results = client.evaluate_batch(endless(), lines=5)
            await results.__anext__()
            await results.aclose()

    asyncio.run(main())
    assert read < 60


def test_batch_of_what_cannot_be_sent(server: Server) -> None:
    async def main() -> None:
        async with ReplClient(server.url) as client:
            bad: Any = [{"code": "x"}]
            async for _ in client.evaluate_batch(bad):
                pass

    with pytest.raises(TypeError):
        asyncio.run(main())
    for wrong in ({"lines": 0}, {"lines": 251}, {"connections": 0}):
        with pytest.raises(ValueError):
            collect(server, 1, **wrong)


JOB = {"job_id": "abc", "kind": "evaluate", "state": "queued", "session": "s", "created": "t", "deadline": "t"}


def test_submit(server: Server) -> None:
    job = ask(
        server,
        lambda c: c.submit_evaluate("s", "x", "f", [], idempotency_key="k", webhook_url="https://x/"),
        Answer(JOB, 202),
    )
    assert (job.job_id, job.state, job.ended) == ("abc", "queued", False)
    (asked,) = server.asked
    assert (asked.path, asked.headers["prefer"], asked.headers["idempotency-key"]) == ("/evaluate_code", "respond-async", "k")
    assert asked.headers["x-webhook-url"] == "https://x/"
    ask(server, lambda c: c.submit_run("s", "ls"), Answer({**JOB, "kind": "run"}, 202))
    assert server.asked[1].body == {"id": "s", "cmd": "ls"} and "idempotency-key" not in server.asked[1].headers


def test_wait_and_cancel(server: Server) -> None:
    done = {**JOB, "state": "done", "status": 200, "result": {"passed": True}, "worker": "w"}
    job = ask(server, lambda c: c.wait_for_job("abc"), Answer(JOB), Answer({**JOB, "state": "running"}), Answer(done))
    assert job.ended and job.result == {"passed": True} and job.status == 200
    assert [a.query for a in server.asked] == [{"wait": "30"}] * 3
    with pytest.raises(ReplServerError, match="queued after 0 s") as caught:
        ask(server, lambda c: c.wait_for_job("abc", 0), Answer(JOB))
    assert caught.value.status_code == 408
    assert ask(server, lambda c: c.cancel_job("a/b"), Answer({**JOB, "state": "cancelled"})).ended
    assert (server.asked[-1].method, server.asked[-1].path) == ("DELETE", "/jobs/a%2Fb")


def test_idempotency_key(server: Server) -> None:
    ran = {"stdout": "", "stderr": "", "id": "s"}
    away = Answer({"detail": "away"}, 503, {"Retry-After": "0"})
    ask(server, lambda c: c.run("s", "ls", idempotency_key="k"), away, Answer(ran), retries=1)
    assert [a.headers["idempotency-key"] for a in server.asked] == ["k", "k"]
    with pytest.raises(ReplServerError):
        ask(server, lambda c: c.run("s", "ls"), away, retries=1)
