"""The client: one method for each thing that the API does."""

from __future__ import annotations

import base64
import binascii
import math
import time
import uuid
from types import TracebackType
from typing import (
    Any,
    AsyncGenerator,
    Dict,
    Iterable,
    Iterator,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    overload,
)
from urllib.parse import quote

import httpx

from .batch import MOST_LINES, grade_batches
from .errors import ReplServerError
from .exchange import BUSY, BUSY_OR_AWAY, AnswerT, Exchange, encode, misshapen, parse
from .inorder import in_order
from .models import (
    DeleteFileResponse,
    Encoding,
    EvaluateCodeResponse,
    EvaluateRequest,
    ForkSessionResponse,
    Isolation,
    JobResponse,
    LimitsLike,
    ReadFileResponse,
    RenameFileResponse,
    ScriptResponse,
    WriteFileResponse,
    limits_payload,
)

# Timeouts in seconds, where the caller gave none.
_SIMPLE_SECONDS = 10.0
_RUN_SECONDS = 45.0  # a command may take 30
_EVALUATE_SECONDS = 180.0  # cases may be many, and a queue before them

# How long one request waits for a job's end, in seconds.
_POLL_SECONDS = 30

_Client = TypeVar("_Client", bound="ReplClient")


class ReplClient:
    """An async client of one gradefleet server.

    It holds the connections, which all its calls share: make one client and
    keep it. Close it with ``aclose``, or use it as ``async with``. Its calls
    may run at the same time, in one event loop.

    Every method raises ``ReplServerError`` when there is no good
    answer: for any status but 200, when the server can't be reached, when the
    wait was too long (``status_code`` 408), and for an answer of the wrong
    shape.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:6000",
        timeout: Optional[float] = None,
        *,
        retries: int = 0,
        max_connections: int = 100,
        api_key: Optional[str] = None,
    ) -> None:
        """
        Args:
            base_url: where the server listens.
            timeout: seconds that a call waits for its answer. None means 10,
                but 45 for ``run``, since a command may take 30, and 180 for
                ``evaluate_code``. ``math.inf`` waits for ever. Connecting is
                given at most 10 of them. It counts for each try anew.
            retries: how often a call is sent again after a 429 or a 503 with
                ``Retry-After`` (a full queue, a worker that is away), waiting
                as long as that says, if it is at most two minutes. ``run`` is
                sent again after a 429 only, since after a 503 the command may
                have run. Nothing is sent again after any other error.
            max_connections: the most connections at a time; a call beyond
                them waits its turn, within its timeout.
            api_key: sent with every call, if the server asks for one.
        """
        if retries < 0:
            raise ValueError(f"retries: want 0 or more, got {retries}")
        if max_connections < 1:
            raise ValueError(f"max_connections: want 1 or more, got {max_connections}")
        self._timeout = timeout
        self._exchange = Exchange(base_url, retries, max_connections, api_key)

    async def __aenter__(self: _Client) -> _Client:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. The client can't be used after."""
        await self._exchange.aclose()

    async def ping(self) -> bool:
        """Whether the server says ``ping``. A ReplServerError if it can't be
        reached or answers with another status than 200."""
        answer = await self._exchange.send("ping", "GET", "/", self._seconds(None, _SIMPLE_SECONDS))
        return answer.text.strip().strip('"') == "ping"

    # --- sessions

    async def create_session(self) -> str:
        """Make a session with a new id, a UUID, and return the id.

        The session holds one empty file, ``placeholder.txt``.
        """
        id = str(uuid.uuid4())
        await self.write_file(id, "placeholder.txt", "")
        return id

    async def fork_session(self, id: str) -> str:
        """Copy a session with all its files; returns the new session's id."""
        return (await self._post("fork_session", ForkSessionResponse, {"id": id})).new_id

    # --- files

    async def write_file(
        self, id: str, rel_path: str, content: Union[str, bytes], *, encoding: Optional[Encoding] = None
    ) -> WriteFileResponse:
        """Write a file, with the directories to it; one that is there is replaced.

        Args:
            content: text, written as UTF-8, or bytes, written as they are.
            encoding: ``"base64"`` if content is a text in base64, of which the
                file gets the bytes. Bytes need no encoding.
        """
        if not isinstance(content, str):
            if encoding == "utf-8":
                raise ValueError('encoding: bytes are written as they are, leave "utf-8" out')
            content, encoding = base64.b64encode(content).decode("ascii"), "base64"
        body = {"id": id, "rel_path": rel_path, "content": content}
        if encoding is not None:
            body["encoding"] = encoding
        return await self._post("write_file", WriteFileResponse, body)

    async def read_file(
        self, id: str, rel_path: str, *, encoding: Optional[Encoding] = None
    ) -> ReadFileResponse:
        """Read a file as text, or as base64 if encoding says so.

        For a file that is no UTF-8 text use ``read_bytes``.
        """
        query = {"id": id, "rel_path": rel_path}
        if encoding is not None:
            query["encoding"] = encoding
        answer = await self._read("read_file", query)
        return parse("read_file", answer, ReadFileResponse)

    async def read_bytes(self, id: str, rel_path: str) -> bytes:
        """Read a file as it is."""
        answer = await self._read("read_bytes", {"id": id, "rel_path": rel_path, "encoding": "base64"})
        content = parse("read_bytes", answer, ReadFileResponse).content
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as err:
            raise misshapen("read_bytes", answer, f"content is no base64: {err}") from err

    async def delete_file(self, id: str, rel_path: str) -> DeleteFileResponse:
        """Delete a file."""
        return await self._post("delete_file", DeleteFileResponse, {"id": id, "rel_path": rel_path})

    async def rename_file(self, id: str, old_path: str, new_path: str) -> RenameFileResponse:
        """Rename a file, with the directories to its new place; one that is there is replaced."""
        body = {"id": id, "old_path": old_path, "new_path": new_path}
        return await self._post("rename_file", RenameFileResponse, body)

    # --- execution

    async def run(
        self,
        id: str,
        cmd: str,
        *,
        timeout: Optional[float] = None,
        limits: Optional[LimitsLike] = None,
        request_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> ScriptResponse:
        """Run a shell command in a session's directory.

        A command that fails or runs out of time is an answer, not an error:
        see ``exit_code`` and ``timed_out``. After a ReplServerError with
        ``status_code`` None, 408 or above 499 the command may have run.

        Args:
            timeout: seconds to wait for the answer; None means the client's,
                45 if it has none.
            limits: ``wall_s``, the seconds that the command may take.
            request_id: an id of your own that the server's log will show.
            idempotency_key: a name of your own for this very call: however often
                it is made, the command runs once, and its answer is kept for a
                time. With it the call is also sent again after a 503.
        """
        answer = await self._exchange.send(
            "run",
            "POST",
            "/run",
            self._seconds(timeout, _RUN_SECONDS),
            body=_run_body(id, cmd, limits),
            request_id=request_id,
            again=BUSY if idempotency_key is None else BUSY_OR_AWAY,
            extra=_key_header(idempotency_key),
        )
        return parse("run", answer, ScriptResponse)

    async def evaluate_code(
        self,
        id: str,
        code: str,
        entry_point: str,
        io_cases: Sequence[Mapping[str, object]],
        timeout: Optional[float] = None,
        *,
        limits: Optional[LimitsLike] = None,
        isolation: Optional[Isolation] = None,
        stop_on_failure: Optional[bool] = None,
        request_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> EvaluateCodeResponse:
        """Grade code against cases.

        Code that fails, crashes or runs out of time is an answer, not an
        error: see each case's ``status``.

        Args:
            id: the session in which the code runs and whose files it sees. It
                need not exist.
            entry_point: the function to call, or an expression for it, such
                as ``Solution().add``.
            io_cases: for each case, ``input``, the arguments as
                ``"a=1, b=[2, 3]"``, and ``output``, the expected value as a
                Python literal.
            timeout: seconds to wait for the answer; None means the client's,
                180 if it has none. The server's own limits are ``limits``.
            limits: limits of each case.
            isolation: ``"process"`` gives each case a process of its own;
                ``"submission"``, the default, one to all of them, and alone to
                those that did not pass.
            stop_on_failure: skip the cases after the first that does not pass.
            request_id: an id of your own that the server's log will show.
            idempotency_key: as for ``run``.
        """
        answer = await self._exchange.send(
            "evaluate_code",
            "POST",
            "/evaluate_code",
            self._seconds(timeout, _EVALUATE_SECONDS),
            body=_evaluate_body(id, code, entry_point, io_cases, limits, isolation, stop_on_failure),
            request_id=request_id,
            extra=_key_header(idempotency_key),
        )
        result = parse("evaluate_code", answer, EvaluateCodeResponse)
        for number, case in enumerate(result.case_results):
            if not isinstance(case.get("passed"), bool):
                raise misshapen("evaluate_code", answer, f"case_results[{number}].passed: want true or false")
        return result

    @overload
    def evaluate_many(
        self,
        requests: Iterable[EvaluateRequest],
        *,
        concurrency: int = ...,
        return_exceptions: Literal[False] = ...,
    ) -> AsyncGenerator[EvaluateCodeResponse, None]: ...

    @overload
    def evaluate_many(
        self,
        requests: Iterable[EvaluateRequest],
        *,
        concurrency: int = ...,
        return_exceptions: bool,
    ) -> AsyncGenerator[Union[EvaluateCodeResponse, ReplServerError], None]: ...

    def evaluate_many(
        self,
        requests: Iterable[EvaluateRequest],
        *,
        concurrency: int = 8,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Grade many submissions; yields their results in the order of the requests.

        Each request is a dict of ``evaluate_code``'s arguments. Without ``id``
        it gets a session id of its own. The requests are read as they are
        needed, so a generator over a large file is fine.

        Args:
            concurrency: how many are with the server at a time. A few for each
                slot of the fleet keeps it busy; more wait in its queue.
            return_exceptions: yield a ReplServerError in the place of its
                result. Otherwise it is raised there, and the rest is cancelled.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency: want 1 or more, got {concurrency}")

        async def grade(request: EvaluateRequest) -> Union[EvaluateCodeResponse, ReplServerError]:
            arguments: Dict[str, Any] = {"id": str(uuid.uuid4()), **request}
            try:
                return await self.evaluate_code(**arguments)
            except ReplServerError as err:
                if not return_exceptions:
                    raise
                return err

        return in_order(requests, grade, concurrency)

    async def evaluate_batch(
        self,
        requests: Iterable[EvaluateRequest],
        *,
        lines: int = 200,
        connections: int = 2,
        timeout: Optional[float] = None,
    ) -> AsyncGenerator[Tuple[int, Union[EvaluateCodeResponse, ReplServerError]], None]:
        """Grade many submissions over few connections; yields the number of each
        request, from 0, and its result or its error, as they come.

        The requests are those of ``evaluate_many`` (``timeout`` and ``request_id``
        in them count for nothing) and are read as they are needed. They go behind
        calls that somebody waits for. What a connection that breaks leaves
        unanswered is sent again.

        Args:
            lines: how many go with one request of the connection; a server takes
                in 256 at a time.
            connections: how many such requests are under way at a time.
            timeout: seconds that the next result of a connection may take; None
                means the client's, 180 if it has none.
        """
        if not 1 <= lines <= MOST_LINES:
            raise ValueError(f"lines: want 1 to {MOST_LINES}, got {lines}")
        if connections < 1:
            raise ValueError(f"connections: want 1 or more, got {connections}")
        seconds = self._seconds(timeout, _EVALUATE_SECONDS)

        def encoded() -> Iterator[bytes]:
            for request in requests:
                given: Dict[str, Any] = {"id": str(uuid.uuid4()), **request}
                given.pop("timeout", None)
                given.pop("request_id", None)
                yield encode(_evaluate_body(**given))

        results = grade_batches(self._exchange, encoded(), lines, connections, seconds)
        try:
            async for result in results:
                yield result
        finally:
            await results.aclose()

    # --- asynchronous jobs

    async def submit_evaluate(
        self,
        id: str,
        code: str,
        entry_point: str,
        io_cases: Sequence[Mapping[str, object]],
        *,
        limits: Optional[LimitsLike] = None,
        isolation: Optional[Isolation] = None,
        stop_on_failure: Optional[bool] = None,
        idempotency_key: Optional[str] = None,
        webhook_url: Optional[str] = None,
    ) -> JobResponse:
        """Have code graded later: returns at once, with the job's ``job_id``.

        Args:
            webhook_url: a URL that is told of the end, if the server permits it.
        """
        body = _evaluate_body(id, code, entry_point, io_cases, limits, isolation, stop_on_failure)
        return await self._submit("/evaluate_code", body, idempotency_key, webhook_url)

    async def submit_run(
        self,
        id: str,
        cmd: str,
        *,
        limits: Optional[LimitsLike] = None,
        idempotency_key: Optional[str] = None,
        webhook_url: Optional[str] = None,
    ) -> JobResponse:
        """Have a command run later: returns at once, with the job's ``job_id``."""
        return await self._submit("/run", _run_body(id, cmd, limits), idempotency_key, webhook_url)

    async def job(self, job_id: str, *, wait: int = 0) -> JobResponse:
        """How far a job is. It waits up to ``wait`` seconds, 60 at most, for the
        job's end. ``status_code`` 404 says that there is none, or not any more."""
        answer = await self._exchange.send(
            "job",
            "GET",
            "/jobs/" + quote(job_id, safe=""),
            self._seconds(None, _SIMPLE_SECONDS) + wait,
            query={"wait": str(wait)},
        )
        return parse("job", answer, JobResponse)

    async def wait_for_job(self, job_id: str, timeout: float = math.inf) -> JobResponse:
        """Wait until a job has ended; a ReplServerError with ``status_code`` 408
        if that takes longer than timeout, in seconds."""
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            job = await self.job(job_id, wait=max(0, min(_POLL_SECONDS, math.ceil(left) if left < _POLL_SECONDS else _POLL_SECONDS)))
            if job.ended:
                return job
            if time.monotonic() >= until:
                raise ReplServerError(f"wait_for_job: the job is {job.state} after {timeout:g} s", 408, "the client gave up")

    async def cancel_job(self, job_id: str) -> JobResponse:
        """Cancel a job that is queued or runs; ``status_code`` 409 says that it is done."""
        path = "/jobs/" + quote(job_id, safe="")
        answer = await self._exchange.send("cancel_job", "DELETE", path, self._seconds(None, _SIMPLE_SECONDS))
        return parse("cancel_job", answer, JobResponse)

    async def _submit(
        self, path: str, body: Mapping[str, Any], key: Optional[str], webhook: Optional[str]
    ) -> JobResponse:
        headers = {"Prefer": "respond-async", **_key_header(key)}
        if webhook is not None:
            headers["X-Webhook-URL"] = webhook
        seconds = self._seconds(None, _SIMPLE_SECONDS)
        again = BUSY if key is None else BUSY_OR_AWAY
        answer = await self._exchange.send("submit", "POST", path, seconds, body=body, again=again, extra=headers, good=202)
        return parse("submit", answer, JobResponse)

    async def _post(self, name: str, model: Type[AnswerT], body: Mapping[str, str]) -> AnswerT:
        """A simple call, whose path is its name."""
        seconds = self._seconds(None, _SIMPLE_SECONDS)
        return parse(name, await self._exchange.send(name, "POST", "/" + name, seconds, body=body), model)

    async def _read(self, name: str, query: Mapping[str, str]) -> httpx.Response:
        seconds = self._seconds(None, _SIMPLE_SECONDS)
        return await self._exchange.send(name, "GET", "/read_file", seconds, query=query)

    def _seconds(self, call: Optional[float], default: float) -> float:
        """How long a call waits: what it was given, else the client, else its default."""
        if call is not None:
            return call
        return default if self._timeout is None else self._timeout


def _run_body(id: str, cmd: str, limits: Optional[LimitsLike]) -> Dict[str, Any]:
    body: Dict[str, Any] = {"id": id, "cmd": cmd}
    if limits is not None:
        body["limits"] = limits_payload(limits)
    return body


def _evaluate_body(
    id: str,
    code: str,
    entry_point: str,
    io_cases: Sequence[Mapping[str, object]],
    limits: Optional[LimitsLike] = None,
    isolation: Optional[Isolation] = None,
    stop_on_failure: Optional[bool] = None,
) -> Dict[str, Any]:
    body: Dict[str, Any] = {
        "id": id,
        "code": code,
        "entry_point": entry_point,
        # What is no mapping goes as it is: the server says what is wrong with it.
        "io_cases": [dict(case) if isinstance(case, Mapping) else case for case in io_cases],
    }
    if limits is not None:
        body["limits"] = limits_payload(limits)
    if isolation is not None:
        body["isolation"] = isolation
    if stop_on_failure is not None:
        body["stop_on_failure"] = stop_on_failure
    return body


def _key_header(key: Optional[str]) -> Dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
