"""One request and its answer: sending it, asking again when the server says
so, and telling a good answer from an error. What the requests mean is not
known here."""

from __future__ import annotations

import json
import math
import time
from asyncio import sleep
from email.utils import parsedate_to_datetime
from typing import Any, AsyncIterator, Container, Mapping, Optional, Type, TypeVar

import httpx

from .errors import ReplServerError
from .models import Answer

AnswerT = TypeVar("AnswerT", bound=Answer)

#: The most seconds that connecting may take, whatever the call's timeout: a
#: host that is not there is not worth the wait of a long grading.
CONNECT_SECONDS = 10.0

#: The statuses after which a call is sent again, if they come with Retry-After:
#: the queue is full, or something that the call needs is not there just now.
BUSY_OR_AWAY = (429, 503)

#: Those after which nothing at all was done. A 503 can also say that a job's
#: fate is not known.
BUSY = (429,)

#: The longest time in seconds that is waited before a call is sent again. A
#: gateway asks for 60 at most; more is for the caller to decide on.
LONGEST_WAIT_SECONDS = 120.0

# How much of an unexpected answer goes into an error, in characters.
_EXCERPT = 500


class Exchange:
    """The connections to one server. At home in one event loop."""

    def __init__(self, base_url: str, retries: int, max_connections: int, api_key: Optional[str] = None) -> None:
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={} if api_key is None else {"X-API-Key": api_key},
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(
        self,
        name: str,
        method: str,
        path: str,
        seconds: float,
        *,
        body: Optional[Mapping[str, Any]] = None,
        query: Optional[Mapping[str, str]] = None,
        request_id: Optional[str] = None,
        again: Container[int] = BUSY_OR_AWAY,
        extra: Optional[Mapping[str, str]] = None,
        good: int = 200,
    ) -> httpx.Response:
        """Send a request, with extra headers; its answer is a 200, or what good says.

        name is the call's, for errors. seconds is how long each try may wait
        for a connection and then for the answer. again are the statuses after
        which it is sent again. After a connection that breaks it never is: the
        server may have done what was asked.

        Raises ReplServerError, and ValueError or TypeError for a body that is
        no JSON.
        """
        headers = dict(extra or {})
        content = None
        if body is not None:
            content = encode(body)
            headers["Content-Type"] = "application/json"
        if request_id is not None:
            headers["X-Request-ID"] = request_id
        patience = None if math.isinf(seconds) else seconds
        timeout = httpx.Timeout(patience, connect=min(seconds, CONNECT_SECONDS))
        for left in range(self._retries, -1, -1):
            try:
                response = await self._http.request(
                    method, path, content=content, params=query, headers=headers, timeout=timeout
                )
            except httpx.TimeoutException as err:
                waited = min(seconds, CONNECT_SECONDS) if isinstance(err, httpx.ConnectTimeout) else seconds
                raise ReplServerError(
                    f"{name}: no answer within {waited:g} s", 408, f"{type(err).__name__}: the client gave up"
                ) from err
            except httpx.HTTPError as err:
                text = str(err) or type(err).__name__
                raise ReplServerError(f"{name}: no answer: {text}", None, text) from err
            if response.status_code == good:
                return response
            error = _refusal(name, response)
            wait = error.retry_after
            if left == 0 or response.status_code not in again or wait is None or wait > LONGEST_WAIT_SECONDS:
                raise error
            await sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def lines(self, name: str, path: str, seconds: float, body: bytes) -> AsyncIterator[Any]:
        """Post lines of JSON; yields the lines of the answer as they come.

        seconds is how long each of them may take. Raises ReplServerError as send
        does; what came before counts.
        """
        patience = None if math.isinf(seconds) else seconds
        timeout = httpx.Timeout(patience, connect=min(seconds, CONNECT_SECONDS))
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            async with self._http.stream("POST", path, content=body, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(name, response)
                async for line in response.aiter_lines():
                    if line.strip():
                        try:
                            yield json.loads(line)
                        except (ValueError, RecursionError) as err:
                            raise misshapen(name, response, f"a line is no JSON: {err}") from err
        except httpx.TimeoutException as err:
            raise ReplServerError(f"{name}: no line within {seconds:g} s", 408, f"{type(err).__name__}: the client gave up") from err
        except httpx.HTTPError as err:
            text = str(err) or type(err).__name__
            raise ReplServerError(f"{name}: no answer: {text}", None, text) from err


def parse(name: str, response: httpx.Response, model: Type[AnswerT]) -> AnswerT:
    """The answer as its model. Raises ReplServerError if it has another shape."""
    try:
        data = json.loads(response.content)
        if not isinstance(data, dict):
            raise ValueError(f"want an object, got {response.text[:_EXCERPT]}")
        return model(**data)
    except (ValueError, RecursionError) as err:  # pydantic's error is a ValueError
        raise misshapen(name, response, str(err)) from err


def misshapen(name: str, response: httpx.Response, why: str) -> ReplServerError:
    """The error for an answer that does not have the documented shape."""
    return ReplServerError(
        f"{name}: the answer does not have the documented shape",
        response.status_code,
        why,
        request_id=response.headers.get("X-Request-ID"),
    )


def encode(body: Mapping[str, Any]) -> bytes:
    # Text outside ASCII goes as UTF-8, at half the size of escapes; only half
    # a surrogate pair has no UTF-8 and must be escaped.
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def _refusal(name: str, response: httpx.Response) -> ReplServerError:
    try:
        details = json.loads(response.content)
        if isinstance(details, dict):
            details = details.get("detail", details)
    except (ValueError, RecursionError):
        details = response.text[:_EXCERPT]
    said = str(details)
    if len(said) > _EXCERPT:
        said = said[:_EXCERPT] + "…"
    return ReplServerError(
        f"{name}: the server answered {response.status_code}: {said}",
        response.status_code,
        details,
        retry_after=_retry_after(response.headers.get("Retry-After")),
        request_id=response.headers.get("X-Request-ID"),
    )


def _retry_after(value: Optional[str]) -> Optional[float]:
    """Retry-After (RFC 9110, 10.2.3), seconds or a date, in seconds from now."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
