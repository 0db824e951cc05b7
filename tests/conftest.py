"""What every test may use: a Ray for those that need one, and a small table of pictures."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lance_align.tables.location import TableLocation

# Set before anything imports them: tests never reach a network, and Ray sends no usage statistics.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's announced default; silences its FutureWarning
# Two processes of tests share the cores: a model's second thread only waits, forty times the work on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and one that a job takes sleeps while it waits
with contextlib.suppress(ImportError):  # the tests of a GPU do without
    import hypothesis

    hypothesis.settings.register_profile("lance_align", deadline=None)  # a busy machine is no failure
    hypothesis.settings.load_profile("lance_align")
# LANCE_ALIGN_CACHE: what OpenVINO compiles is kept for this session only. LANCE_ALIGN_FAULTS: arms the fault sites of
# this process and of those it starts; nothing happens without a plan (lance_align.faults). Each process of tests has
# its own, for a plan holds for all that share the folder.
for _name in ("LANCE_ALIGN_CACHE", "LANCE_ALIGN_FAULTS"):
    if _name not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[_name] = tempfile.mkdtemp(prefix=f"{_name.lower().replace('_', '-')}-")
        atexit.register(shutil.rmtree, os.environ[_name], ignore_errors=True)


_LONG = {"test_faults", "test_engines", "test_ray_job", "test_indexing", "test_on_ray", "test_sandbox", "test_hub"}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in as many processes as there are cores, eight at most, a file's tests in one of them.

    Only where pytest-xdist is installed, no files are named and nobody says ``-n``: the tests of the encoders on a GPU
    need nothing but pytest, torch and transformers.
    """
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and "PYTEST_XDIST_WORKER" not in os.environ
    if is_whole and config.pluginmanager.hasplugin("xdist") and config.getoption("numprocesses", None) is None:
        config.option.numprocesses = min(8, os.cpu_count() or 1)
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False  # `pytest_collection_modifyitems` says the order
        config.option.maxworkerrestart = "0"  # xdist 3.8 waits for ever once it has replaced a process that died


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take a minute come first, so that no process ends long after the others."""
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """One local Ray for a module's tests: jobs of this process run on it, while others run in the process itself."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> str:
    """The executor that a test's parameter names, with what it needs."""
    name: str = request.param
    if name == "ray":
        request.getfixturevalue("ray_session")
    return name


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """One thread for torch before each test, whatever the one before it has left."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def place(tmp_path: Path) -> TableLocation:
    """Where `photos` lies."""
    from tests.fake_tables import write_photos

    return write_photos(tmp_path / "db")


@pytest.fixture
def photos(place: TableLocation) -> Any:
    """A LanceDB table of four pictures, one of them unreadable; see `tests.fake_tables.write_photos`."""
    import lancedb

    return lancedb.connect(place.db).open_table(place.name)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A describer's checkpoint of each family."""
    from tests import describer_models

    root = tmp_path_factory.mktemp("describers")
    return {
        "caption": describer_models.blip(root / "caption"),
        "question": describer_models.blip(root / "question", question=True),
        "instructblip": describer_models.instructblip(root / "instructblip"),
        "llava": describer_models.llava(root / "llava"),
        "llava_next": describer_models.llava_next(root / "llava_next"),
    }
