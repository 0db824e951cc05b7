"""The house itself: public names, and an import that stays cheap. Linters and types are lines of ``.ci/run``."""

from __future__ import annotations

import os
import shutil
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
        "Evaluation",
        "IndexReport",
        "JobReport",
        "KnownModel",
        "LanceAlignError",
        "MatchReranker",
        "ModelSpec",
        "Query",
        "RunOptions",
        "SearchSettings",
        "Segmentation",
        "TrainReport",
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
        "evaluate",
        "explore",
        "known_models",
        "load_encoder",
        "resolve_spec",
        "search_settings",
        "segment",
        "train",
        "verify",
        "warm_up",
        "zero_shot",
    ]
    for name in lance_align.__all__:
        assert getattr(lance_align, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lance_align.nothing


def test_what_the_demo_leaves_does_not_change_what_the_linters_say(tmp_path: Path) -> None:
    """The README's first command makes ./lancedb, and its second one is followed by these in the same clone."""
    (tmp_path / "lancedb").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "module.py").write_text("import lancedb\nimport pyarrow as pa\n\nfrom lance_align import embed\n")
    done = run("ruff", "check", "--select", "I", "--no-cache", str(tmp_path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "pipelines").glob("*.py")))
def test_pipelines_run_by_their_names(script: str) -> None:
    """As ``ray job submit pipelines/embed.py`` runs them: with a run bit, and the interpreter that is on the path."""
    path = ROOT / "pipelines" / script
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python\n")
    assert os.access(path, os.X_OK)


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
        ("import lance_align.jobs.plan, lance_align.jobs.embed", "lancedb ray"),
        (
            "from lance_align.cli import embed, describe, backfill",
            "lancedb torch transformers ray",
        ),
        ("import lance_align.jobs.ledger.registry", "lancedb torch transformers ray"),
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
    """Past so many lines a noun wants its own file."""
    for folder, limit in (("lance_align", 700), ("pipelines", 150)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines"
