"""What a server says of when it may be asked again."""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any


def retry_after_s(headers: Any) -> float | None:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date, or retry-after-ms;
    None where it says nothing."""
    unreadable = suppress(KeyError, ValueError, TypeError, OverflowError)
    with unreadable:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    with unreadable:
        return max(0.0, float(headers["retry-after"]))
    with unreadable:
        until = parsedate_to_datetime(headers["retry-after"])
        wait = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
        return max(0.0, wait.total_seconds())
    return None
