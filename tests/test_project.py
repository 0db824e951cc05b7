"""The house itself: floors, public names, annotations, and an import that stays cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lance_align

ROOT = Path(__file__).parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


def test_the_table_of_contents_is_pinned() -> None:
    assert sorted(lance_align.__all__) == [
        "AlignFunction",
        "CleanupReport",
        "Embeddings",
        "Encoder",
        "IndexReport",
        "JobReport",
        "KnownModel",
        "LanceAlignError",
        "MatchReranker",
        "ModelSpec",
        "Query",
        "SearchSettings",
        "Segmentation",
        "Verification",
        "WarmUp",
        "__version__",
        "add_areas",
        "add_labels",
        "allow_models",
        "attach",
        "backfill",
        "build_index",
        "cleanup",
        "describe",
        "embed",
        "known_models",
        "load_encoder",
        "resolve_spec",
        "search_settings",
        "segment",
        "verify",
        "warm_up",
        "zero_shot",
    ]
    for name in lance_align.__all__:
        assert getattr(lance_align, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lance_align.nothing


def test_floors_hold() -> None:
    """The import-linter contracts of pyproject.toml."""
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize("tool", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)])
def test_style_and_annotations(tool: tuple[str, ...]) -> None:
    done = run(*tool)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("imports", ["lance_align, lancedb", "lancedb, lance_align", "lance_align.functions"])
def test_importing_registers_the_function_and_loads_neither_torch_nor_ray(imports: str) -> None:
    program = (
        f"import sys, {imports}; from lancedb.embeddings import get_registry; get_registry().get('align'); "
        "print(sorted({'torch', 'transformers', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("does", "without"),
    [
        ("import lance_align.jobs.plan", "lancedb"),
        ("import pipelines.embed, pipelines.describe, pipelines.backfill", "lancedb torch transformers"),
        ("import lance_align.jobs.ledger.actor", "lancedb torch transformers ray.data"),
        (
            "from lance_align import resolve_spec; resolve_spec('align-tiny')",
            "transformers.models.align.modeling_align",
        ),
    ],
)
def test_what_takes_seconds_to_import_is_imported_by_whom_it_serves(does: str, without: str) -> None:
    """In each process of a job, before its first row."""
    program = f"import sys; {does}; print(sorted(set({without.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_stay_readable() -> None:
    """Four hundred lines a module, a hundred and fifty a pipeline: past that a noun wants its own file."""
    for folder, limit in (("lance_align", 400), ("pipelines", 150)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines"
