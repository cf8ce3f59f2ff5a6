"""Every method against a fleet that runs at GRADEFLEET_URL; skipped without one."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, Awaitable, Callable, List

import pytest
from readme import run_example

from repl_client import EvaluateRequest, Limits, ReplClient, ReplServerError

ADD = "def add(a, b):\n    return a + b"


def live(url: str, body: Callable[[ReplClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ReplClient(url, retries=5) as client:
            await body(client)

    asyncio.run(main())


async def refused(call: Awaitable[Any]) -> ReplServerError:
    with pytest.raises(ReplServerError) as caught:
        await call
    return caught.value


def test_readme_example(fleet: str) -> None:
    out, err = run_example(fleet)
    assert err == ""
    assert out.startswith("Hello, REPL!\n \nTrue [{'passed': True, ")


def test_ping(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        assert await client.ping() is True

    live(fleet, body)


def test_files(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        assert (await client.read_file(id, "placeholder.txt")).content == ""

        wrote = await client.write_file(id, "ünï/a b&c.txt", "naïve 日本\r\n🎉")
        assert (wrote.success, wrote.id, wrote.rel_path) == (True, id, "ünï/a b&c.txt")
        read = await client.read_file(id, "ünï/a b&c.txt")
        assert (read.content, read.id, read.rel_path) == ("naïve 日本\r\n🎉", id, "ünï/a b&c.txt")

        renamed = await client.rename_file(id, "ünï/a b&c.txt", "b.txt")
        assert (renamed.success, renamed.old_path, renamed.new_path) == (True, "ünï/a b&c.txt", "b.txt")
        deleted = await client.delete_file(id, "b.txt")
        assert (deleted.success, deleted.rel_path) == (True, "b.txt")
        assert (await refused(client.read_file(id, "b.txt"))).status_code == 404

    live(fleet, body)


def test_bytes(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        data = bytes(range(256)) * 40
        await client.write_file(id, "data.bin", data)
        assert await client.read_bytes(id, "data.bin") == data
        assert (await client.run(id, "wc -c < data.bin")).stdout.strip() == str(len(data))

        await client.write_file(id, "b64.bin", "/wA=", encoding="base64")
        assert await client.read_bytes(id, "b64.bin") == b"\xff\x00"
        assert (await client.read_file(id, "b64.bin", encoding="base64")).content == "/wA="

    live(fleet, body)


def test_fork(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        await client.write_file(id, "a.txt", "v")
        copy = await client.fork_session(id)
        assert copy != id
        await client.write_file(id, "a.txt", "changed")
        assert (await client.read_file(copy, "a.txt")).content == "v"
        assert (await refused(client.fork_session(str(uuid.uuid4())))).status_code == 404

    live(fleet, body)


def test_run(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        ran = await client.run(id, "echo out; echo err >&2; exit 3", request_id="python-client-test")
        assert (ran.stdout, ran.stderr, ran.id) == ("out\n", "err\n", id)
        assert (ran.exit_code, ran.timed_out, ran.truncated) == (3, False, False)
        assert ran.wall_ms is not None and ran.wall_ms > 0

        slow = await client.run(id, "echo first; sleep 60", limits=Limits(wall_s=3))
        assert slow.timed_out is True
        assert slow.stdout == "first\n"

    live(fleet, body)


def test_evaluate(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        cases = [{"input": "a=1, b=2", "output": "3"}, {"input": "a=1, b=2", "output": "4"}]
        result = await client.evaluate_code(id, ADD, "add", cases, request_id="python-client-test")
        assert result.passed is False and result.error is None
        assert [c["passed"] for c in result.case_results] == [True, False]
        assert [c["status"] for c in result.case_results] == ["passed", "failed"]
        assert [(c["got"], c["expected"], c["case"]) for c in result.case_results] == [(3, 3, 0), (3, 4, 1)]

    live(fleet, body)


def test_evaluate_extras(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        cases = [{"input": "x=1", "output": "0"}, {"input": "x=2", "output": "2"}]
        same = "def f(x):\n    return x"
        stopped = await client.evaluate_code(str(uuid.uuid4()), same, "f", cases, stop_on_failure=True)
        assert [c["status"] for c in stopped.case_results] == ["failed", "skipped"]

        alone = await client.evaluate_code(str(uuid.uuid4()), same, "f", cases, isolation="process")
        assert [c["status"] for c in alone.case_results] == ["failed", "passed"]

        loop = "def f(x):\n    while True:\n        pass"
        slow = await client.evaluate_code(str(uuid.uuid4()), loop, "f", cases[:1], limits={"wall_s": 0.5})
        assert [c["status"] for c in slow.case_results] == ["timeout"]

    live(fleet, body)


def test_evaluate_many(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        # Every third one expects one too many.
        cases = [{"input": f"a={n}, b=1", "output": str(n + 1 + n % 3 // 2)} for n in range(30)]
        requests: List[EvaluateRequest] = [
            {"code": ADD, "entry_point": "add", "io_cases": [case]} for case in cases
        ]
        passed = [r.passed async for r in client.evaluate_many(requests, concurrency=6)]
        assert passed == [n % 3 != 2 for n in range(30)]

    live(fleet, body)


def test_errors(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        id = await client.create_session()
        traversal = await refused(client.read_file(id, "../../etc/passwd"))
        assert (traversal.status_code, traversal.details) == (400, "Invalid path")
        assert (await refused(client.run(str(uuid.uuid4()), "true"))).status_code == 400
        assert (await refused(client.write_file("not/an/id", "a", ""))).status_code == 400
        odd: Any = ["a=1"]
        assert (await refused(client.evaluate_code(id, ADD, "add", odd))).status_code == 422
        missing = await refused(client.delete_file(id, "no.txt"))
        assert (missing.status_code, missing.details) == (404, "File does not exist")

    live(fleet, body)


def test_batch(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        requests: List[EvaluateRequest] = [
            {"code": ADD, "entry_point": "add", "io_cases": [{"input": f"a={n}, b=1", "output": str(n + 1 + n % 3 // 2)}]}
            for n in range(300)
        ]
        seen = {number: result async for number, result in client.evaluate_batch(requests, lines=100)}
        assert sorted(seen) == list(range(300))
        assert [seen[n].passed for n in range(300)] == [n % 3 != 2 for n in range(300)]  # type: ignore[union-attr]

    live(fleet, body)


def test_jobs(fleet: str) -> None:
    async def body(client: ReplClient) -> None:
        job = await client.submit_evaluate(str(uuid.uuid4()), ADD, "add", [{"input": "a=1, b=2", "output": "3"}])
        job = await client.wait_for_job(job.job_id, 60)
        assert (job.state, job.status, job.result["passed"]) == ("done", 200, True)
        assert (await refused(client.cancel_job(job.job_id))).status_code == 409
        assert (await refused(client.job("0123"))).status_code == 404

        id, key = await client.create_session(), str(uuid.uuid4())
        first = await client.run(id, "date +%N", idempotency_key=key)
        assert (await client.run(id, "date +%N", idempotency_key=key)).stdout == first.stdout
        assert (await refused(client.run(id, "date", idempotency_key=key))).status_code == 422

    live(fleet, body)
