"""Batches: many submissions in one request, their results as they come, and
what was not answered sent again."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncGenerator, Dict, Iterator, List, Set, Tuple, Union

from .errors import ReplServerError
from .exchange import BUSY_OR_AWAY, LONGEST_WAIT_SECONDS, Exchange
from .models import EvaluateCodeResponse

#: The most lines of one request. It is sent whole before its answer is read,
#: and a server that has so many unanswered reads no further.
MOST_LINES = 250

# The most bytes of one request, for the same reason.
_MOST_BYTES = 16 << 20

# How often in a row a request may bring no answer to any line before those that
# are left are given up, and how long to wait in between, in seconds.
_TRIES = 5
_PAUSE_SECONDS = 1.0

Result = Tuple[int, Union[EvaluateCodeResponse, ReplServerError]]


async def grade_batches(
    exchange: Exchange, bodies: Iterator[bytes], lines: int, connections: int, seconds: float
) -> AsyncGenerator[Result, None]:
    """Yield the result of every body with its number, as they come."""
    results: asyncio.Queue[Union[Result, None, BaseException]] = asyncio.Queue(maxsize=2 * lines)
    numbered = enumerate(bodies)

    async def connection() -> None:
        try:
            while True:
                chunk = _take(numbered, lines)
                if not chunk:
                    break
                await _grade(exchange, chunk, seconds, results)
        except Exception as err:  # of whoever makes the bodies
            await results.put(err)
        else:
            await results.put(None)

    tasks = [asyncio.create_task(connection()) for _ in range(connections)]
    try:
        left = connections
        while left:
            result = await results.get()
            if result is None:
                left -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _take(numbered: Iterator[Tuple[int, bytes]], lines: int) -> Dict[int, bytes]:
    chunk: Dict[int, bytes] = {}
    size = 0
    for number, body in numbered:
        chunk[number] = body
        size += len(body)
        if len(chunk) == lines or size >= _MOST_BYTES:
            break
    return chunk


async def _grade(exchange: Exchange, open: Dict[int, bytes], seconds: float, results: "asyncio.Queue[Any]") -> None:
    """Send bodies until all are answered, or no answers come any more."""
    tries = 0
    while open:
        order: List[int] = list(open)
        answered: Set[int] = set()
        error = ReplServerError("evaluate_batch: the connection ended before all lines were answered")
        try:
            async for line in exchange.lines("evaluate_batch", "/evaluate_batch", seconds, b"".join(b + b"\n" for b in open.values())):
                if not isinstance(line, dict) or "done" in line:
                    continue
                number = order[line["index"]]
                if number in answered:
                    continue
                result = _result(line)
                if isinstance(result, ReplServerError) and result.status_code == 503:
                    error = result  # a gateway that stops: another may do better
                    continue
                answered.add(number)
                await results.put((number, result))
        except ReplServerError as err:
            error = err
            if err.status_code not in (None, 408, *BUSY_OR_AWAY):
                tries = _TRIES  # it would be refused again
        except (KeyError, IndexError, TypeError) as err:
            error = ReplServerError("evaluate_batch: the answer does not have the documented shape", 200, repr(err))
            tries = _TRIES
        for number in answered:
            del open[number]
        tries = 0 if answered else tries + 1
        if open and tries >= _TRIES:
            for number in open:
                await results.put((number, error))
            return
        if open:
            await asyncio.sleep(min(error.retry_after or _PAUSE_SECONDS, LONGEST_WAIT_SECONDS))


def _result(line: Dict[str, Any]) -> Union[EvaluateCodeResponse, ReplServerError]:
    if line["status"] != 200:
        detail = line.get("detail")
        return ReplServerError(f"evaluate_batch: the server answered {line['status']}: {detail}", line["status"], detail)
    try:
        return EvaluateCodeResponse(**line["result"])
    except ValueError as err:  # pydantic's error is one
        return ReplServerError("evaluate_batch: the answer does not have the documented shape", 200, str(err))
