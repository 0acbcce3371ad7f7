"""A browser for the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Tab, browser, chromium


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with browser(program) as tab:
        yield tab
