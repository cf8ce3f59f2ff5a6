"""The one exception that a call raises when it did not get its answer."""

from __future__ import annotations

from typing import Any, Optional


class ReplServerError(Exception):
    """A call that did not end in a good answer.

    ``status_code`` tells the kinds apart:

    ==============  ==========================================================
    any other       what the server answered; ``details`` is its ``detail``
    ``408``         the client waited as long as it was told to and gave up;
                    the server may still be at work
    ``200``         the answer does not have the documented shape
    ``None``        no answer: the server can't be reached, or the connection
                    broke
    ==============  ==========================================================

    Attributes:
        message: what happened, in one line that names the call.
        status_code: see above.
        details: the ``detail`` of the server's answer (a text; a list from
            some servers), else a text that says more than the message.
        retry_after: seconds after which the server wants to be asked again;
            None if it did not say.
        request_id: the ``X-Request-ID`` of the answer, to find it in the
            server's log; None if there was none.
    """

    def __init__(
        self,
        message: str,
        status_code: Optional[int] = None,
        details: Any = None,
        *,
        retry_after: Optional[float] = None,
        request_id: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.details = details
        self.retry_after = retry_after
        self.request_id = request_id
