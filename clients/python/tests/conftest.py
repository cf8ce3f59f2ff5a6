"""Fixtures: a scripted server for the unit tests, a fleet's address for the live ones."""

from __future__ import annotations

import os
from typing import Iterator

import pytest
from scripted import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def fleet() -> str:
    url = os.environ.get("GRADEFLEET_URL", "")
    if not url:
        pytest.skip("GRADEFLEET_URL is not set: give it the address of a running fleet, such as http://localhost:6000")
    return url.rstrip("/")
