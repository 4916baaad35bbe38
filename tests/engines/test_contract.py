"""Every engine keeps the contract."""

from __future__ import annotations

import shutil

import pytest

from .. import conftest
from .contract import AppleSubject, CommandContract, CommandSubject, EngineContract, MemorySubject, Subject


class TestMemory(EngineContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return MemorySubject()


@pytest.mark.parametrize("engine_name", conftest.tested_engines())
class TestRealEngine(EngineContract, CommandContract):
    @pytest.fixture
    def subject(self, engine_name: str) -> Subject:
        if engine_name == "apple":
            return AppleSubject()
        assert shutil.which(engine_name), f"{engine_name} is not installed: `make setup` does it"
        return CommandSubject(engine_name)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("stand_in", conftest.RELEASES, indirect=True)
class TestApple(EngineContract, CommandContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return AppleSubject()
