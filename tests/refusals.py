"""What a refusal must be: an error of ours that says in one line what was wrong."""

from collections.abc import Callable
from typing import Any

import pytest


def assert_refused(call: Callable[..., Any], *arguments: Any, message: str, **options: Any) -> None:
    """Check that the call raises ValueError or TypeError, saying ``message`` in one line."""
    with pytest.raises((ValueError, TypeError), match=message) as refusal:
        call(*arguments, **options)
    assert "\n" not in str(refusal.value)
