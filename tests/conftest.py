"""What every test may use: one Ray for the whole session, and a folder of real pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Set before anything imports them: tests never reach a network, and Ray sends no usage statistics.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's announced default; silences its FutureWarning


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for the session: starting one costs seconds."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
