"""What becomes of a test that needs a part which this machine does not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, hint: str) -> NoReturn:
    """Skip the test; where CI runs (the variable CI is set) fail it, because there nothing may go untested.

    `what` is missing, and `hint` says how to get it.
    """
    if os.environ.get("CI"):
        pytest.fail(f"{what}. {hint}", pytrace=False)
    pytest.skip(f"{what}. {hint}")
