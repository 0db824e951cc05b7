"""The wheel is the whole product: installed beside its dependencies, it runs in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, and sees this environment's packages, but for the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    found = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(found), "install", "--no-deps", "-q", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


def command(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    line = [str(python.parent / "lance-align"), *words]
    return subprocess.run(line, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)


def test_the_wheel_alone_runs_the_demo_and_searches(python: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [str(python), "-c", "import lance_align; print(lance_align.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    ).stdout
    assert str(python.parent.parent) in where
    done = command(python, "demo", "--rows", "60", "--no-progress", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo.png").is_file()
    found = command(python, "search", "red apple", "--table", "demo", "--limit", "3", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 3
    module = subprocess.run(
        [str(python), "-m", "lance_align", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert module.stdout.strip()
