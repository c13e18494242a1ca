"""What tests of the laboratory share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Lend the one thread in which participants decode."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool
