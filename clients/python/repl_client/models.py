"""What goes into a request and what comes back: plain data, no behaviour.

The answers are pydantic models, written so that they mean the same with
pydantic 1 and 2. Keys that an answer has beyond the documented ones are kept as
attributes, so that an older client can read a newer server.
"""

# No "from __future__ import annotations" here: pydantic evaluates them.

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Literal, Mapping, Optional, Sequence, TypedDict, Union

from pydantic import BaseModel, StrictBool, StrictStr

#: How a case ended. Only ``passed`` passes.
CaseStatus = Literal["passed", "failed", "error", "timeout", "memory", "crashed", "output_limit", "skipped"]

#: How a file's content is written in a request or an answer.
Encoding = Literal["utf-8", "base64"]

#: Whether all cases share a process, or each gets one of its own.
Isolation = Literal["submission", "process"]


# --- what a request holds


@dataclass(frozen=True)
class Limits:
    """Limits of each case, or of a command, up to the server's own maxima;
    None leaves the server's default."""

    #: Seconds on the wall clock. The server's default is 5, for a command 30.
    wall_s: Optional[float] = None
    #: Seconds of processor time. The server's default is 4. Not for a command.
    cpu_s: Optional[float] = None
    #: Memory in MiB. The server's default is 2048. Not for a command.
    memory_mb: Optional[float] = None


#: Limits as the class or as a dict with the same names.
LimitsLike = Union[Limits, Mapping[str, float]]


class _Submission(TypedDict):
    code: str
    entry_point: str
    io_cases: Sequence[Mapping[str, object]]


class EvaluateRequest(_Submission, total=False):
    """One request of ``ReplClient.evaluate_many``: the arguments of
    ``evaluate_code`` by name. Without ``id`` it is graded in a session of its
    own, which leaves nothing behind."""

    id: str
    timeout: float
    limits: LimitsLike
    isolation: Isolation
    stop_on_failure: bool
    request_id: str


# --- what an answer holds


class _Verdict(TypedDict):
    passed: bool


class CaseResult(_Verdict, total=False):
    """The result of one case: a plain dict with these keys.

    Only ``passed`` is always there. An answer that would be too long has less
    of each case, and other servers than gradefleet send fewer keys.
    """

    #: What the submission returned, and what was expected, as JSON values.
    got: Any
    expected: Any
    #: What went wrong; None for a plain pass or a wrong answer.
    error: Optional[str]
    #: The case's place in ``io_cases``, from 0, and its input.
    case: int
    input: Any
    status: CaseStatus
    #: Processor time and wall time in milliseconds, peak memory in KiB.
    cpu_ms: float
    wall_ms: float
    memory_kb: int
    #: What the case printed, cut at the server's limit.
    stdout: str
    stderr: str
    got_truncated: bool
    stdout_truncated: bool
    stderr_truncated: bool
    #: "submission" if the verdict rests on the submission's own definitions.
    trust: str
    #: What the submission was seen trying.
    integrity: List[str]


# A number where a text belongs is a wrong answer, not something to convert. The
# case results stay the plain dicts that they are on the wire: pydantic 2 would
# drop keys that CaseResult does not name, and wants another TypedDict before
# Python 3.12. Type checkers see the plain types.
if TYPE_CHECKING:
    _Text = str
    _Flag = bool
    _CaseResults = List[CaseResult]
else:
    _Text = StrictStr
    _Flag = StrictBool
    _CaseResults = List[dict]


class Answer(BaseModel, extra="allow"):
    """Any answer. Keys that it has beyond the documented ones are attributes."""


class ScriptResponse(Answer):
    """What a command did. All but the first three are None from a server that
    does not tell."""

    stdout: _Text
    stderr: _Text
    id: _Text
    #: The exit status of the shell; minus the signal's number if one ended it.
    exit_code: Optional[int] = None
    #: Whether the command ran into its time limit and was ended.
    timed_out: Optional[_Flag] = None
    #: Whether output was cut at the server's limit.
    truncated: Optional[_Flag] = None
    #: Processor time and wall time in milliseconds, peak memory in KiB.
    cpu_ms: Optional[float] = None
    wall_ms: Optional[float] = None
    memory_kb: Optional[int] = None


class WriteFileResponse(Answer):
    """A file was written."""

    success: _Flag
    id: _Text
    rel_path: _Text


class ReadFileResponse(Answer):
    """A file's content: text, or base64 if that was asked for."""

    content: _Text
    id: _Text
    rel_path: _Text


class DeleteFileResponse(Answer):
    """A file was deleted."""

    success: _Flag
    id: _Text
    rel_path: _Text


class RenameFileResponse(Answer):
    """A file was renamed."""

    success: _Flag
    id: _Text
    old_path: _Text
    new_path: _Text


class EvaluateCodeResponse(Answer):
    """What became of a submission: ``passed`` if every case did."""

    passed: _Flag
    case_results: _CaseResults
    error: Optional[_Text] = None


class JobResponse(Answer):
    """How far an asynchronous job is."""

    job_id: _Text
    #: "queued", "running", "done" or "cancelled".
    state: _Text
    #: "evaluate" or "run".
    kind: Optional[_Text] = None
    session: Optional[_Text] = None
    #: When it was queued, and when it is given up if it is still: RFC 3339.
    created: Optional[_Text] = None
    deadline: Optional[_Text] = None
    #: Where it runs or ran, and since when.
    worker: Optional[_Text] = None
    since: Optional[_Text] = None
    finished: Optional[_Text] = None
    #: The status and the JSON that the plain call would have been answered with.
    status: Optional[int] = None
    result: Any = None

    @property
    def ended(self) -> bool:
        """Whether it never changes again."""
        return self.state in ("done", "cancelled")


class ForkSessionResponse(Answer):
    """A session was copied."""

    new_id: _Text


# --- as JSON


def limits_payload(limits: LimitsLike) -> Dict[str, float]:
    """Limits as a request carries them: only what was given."""
    if not isinstance(limits, Limits):
        return dict(limits)
    given = {"wall_s": limits.wall_s, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb}
    return {name: value for name, value in given.items() if value is not None}
