"""An async client of gradefleet's HTTP API.

    async with ReplClient("http://localhost:6000") as client:
        session_id = await client.create_session()
        result = await client.run(session_id, "echo hello")
"""

from .client import ReplClient
from .errors import ReplServerError
from .models import (
    CaseResult,
    CaseStatus,
    DeleteFileResponse,
    Encoding,
    EvaluateCodeResponse,
    EvaluateRequest,
    ForkSessionResponse,
    Isolation,
    JobResponse,
    Limits,
    LimitsLike,
    ReadFileResponse,
    RenameFileResponse,
    ScriptResponse,
    WriteFileResponse,
)

__version__ = "0.1.0"

__all__ = [
    "CaseResult",
    "CaseStatus",
    "DeleteFileResponse",
    "Encoding",
    "EvaluateCodeResponse",
    "EvaluateRequest",
    "ForkSessionResponse",
    "Isolation",
    "JobResponse",
    "Limits",
    "LimitsLike",
    "ReadFileResponse",
    "RenameFileResponse",
    "ReplClient",
    "ReplServerError",
    "ScriptResponse",
    "WriteFileResponse",
]
