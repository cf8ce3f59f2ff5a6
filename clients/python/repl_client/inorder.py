"""Many calls at a time, their results in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import AsyncGenerator, Awaitable, Callable, Deque, Iterable, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# How far the calls may run ahead of the result that is waited for, in multiples
# of the concurrency: one slow call then doesn't hold up the others behind it,
# and what is finished but not yet taken stays bounded.
_AHEAD = 4


async def in_order(
    items: Iterable[T], call: Callable[[T], Awaitable[R]], concurrency: int
) -> AsyncGenerator[R, None]:
    """Yield call(item) for each item, in their order, at most concurrency of
    them running. items is read as the calls progress, never all at once.

    The first exception is raised when its turn comes; what runs then, or when
    the generator is closed, is cancelled.
    """
    slots = asyncio.Semaphore(concurrency)

    async def one(item: T) -> R:
        async with slots:
            return await call(item)

    ahead: Deque[asyncio.Task[R]] = deque()
    try:
        for item in items:
            ahead.append(asyncio.create_task(one(item)))
            if len(ahead) >= _AHEAD * concurrency:
                yield await ahead[0]
                ahead.popleft()
        while ahead:
            yield await ahead[0]
            ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)
