"""The README is true: its Python runs, its links lead somewhere. Its commands: test_command_lines.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lance_align
from lance_align.corpora import demo_source
from tests.family_models import save_family

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks, one after the other, beside a small demo table; published checkpoints have small ones' names."""
    monkeypatch.chdir(tmp_path)
    source = demo_source("openmoji", directory=tmp_path, rows=150)
    lance_align.embed(source, db="./lancedb", table="demo", model="align-tiny", progress=False)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        # not this module's postponed annotations: pydantic reads them as types
        for name, family in (("Salesforce/blip-itm-base-coco", "blip"), ("nvidia/groupvit-gcc-yfcc", "groupvit")):
            if name in block:
                block = block.replace(name, str(save_family(family, tmp_path / family)))
        exec(compile(block, "README.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own text
    assert names["table"].count_rows() == 151
    labelled = names["table"].search().where("kind IS NOT NULL").limit(None).to_list()
    assert {row["kind"] for row in labelled} <= set(names["labels"])
    assert len(labelled) == 151
    assert names["photos"].to_arrow()["vector"].null_count == 0


def test_its_first_commands_are_what_ci_runs() -> None:
    install, test = [line.split("#")[0].strip() for line in blocks("bash")[0].strip().splitlines()]
    assert install == 'pip install -e ".[demo]" && python pipelines/embed.py'
    assert test == 'pip install -e ".[test]" && pytest'
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert ci[-1] == "pytest -q"
    assert 'pip install -q -e ".[test]"' in ci
    linters = TEXT.split("`.ci/run` runs these first:", 1)[1].split("```")[1].strip().splitlines()[1:]
    assert ci[-1 - len(linters) : -1] == linters


def test_its_links_lead_somewhere() -> None:
    local = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if not target.startswith("http")]
    assert len(local) >= 4
    assert [target for target in local if not (ROOT / target).is_file()] == []
