"""Fixtures that many tests share: a bundled recording, and a recorder of live schedulers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from faults import PROPERTY, tell
from fidelity_slice import todays
from recorded import RigRecorder
from recorder_alone import owner, recorder
from specdiff.cli.inputs import bundled

__all__ = ["owner", "recorder", "tell"]  # fixtures

settings.register_profile("unhurried", settings.default, deadline=None)  # no time limit per example
settings.load_profile("unhurried")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the fault tests counted."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, said in report.user_properties:
                if name == PROPERTY and report.when == "call":
                    terminalreporter.write_line(f"faults: {said}")


def pytest_report_header() -> str:
    return f"slice of the day: {todays()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that record a live scheduler as `live`. Skip them outside Linux."""
    for item in items:
        if "record" in getattr(item, "fixturenames", ()) or item.get_closest_marker("live"):
            item.add_marker("live")
            if sys.platform != "linux":
                item.add_marker(pytest.mark.skip(reason="sglang's wheels need Linux"))


@pytest.fixture(scope="session")
def real_recording() -> Path:
    """The smallest bundled recording: real, and small enough to damage it hundreds of times."""
    return min(bundled().glob("*.h5"), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> RigRecorder:
    return RigRecorder(tmp_path_factory.mktemp("recorded"))
