"""Options of the test suite."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same cases in every run: what is committed is green for everyone. HYPOTHESIS_PROFILE=search looks for new ones.
# A busy machine is no reason to fail: neither a deadline nor how long cases take to draw is looked at.
PATIENT = [HealthCheck.too_slow]
settings.register_profile(
    "same", derandomize=True, database=None, print_blob=True, deadline=None, suppress_health_check=PATIENT
)
settings.register_profile("search", derandomize=False, print_blob=True, deadline=None, suppress_health_check=PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell that starts the tests in the background has them ignore the keyboard; some tests press its keys.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write the expected outputs anew, do not compare")


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster of whoever runs the tests is left alone."""
    for variable in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("calico_debug.agent.kubeconfig.DEFAULT_FILE", Path("no/such/kubeconfig"))
