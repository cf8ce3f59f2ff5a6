"""Making one call against a scripted server."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

from scripted import Server, Step

from repl_client import ReplClient

Call = Callable[[ReplClient], Awaitable[Any]]


def ask(server: Server, call: Call, *steps: Step, **options: Any) -> Any:
    """Make a call that the server answers with steps, on a client with options;
    returns what the call returned."""
    server.script.extend(steps)

    async def main() -> Any:
        async with ReplClient(server.url, **options) as client:
            return await call(client)

    return asyncio.run(main())
