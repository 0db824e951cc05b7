"""The scripts' command lines: every option takes a value of its kind, and README's commands are understood."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import types
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from cyclopts import App, CycloptsError

from lance_align import embed
from lance_align.cli import COMMANDS, main
from tests.corpus import parquet, pictures

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OTHERS = ("pipelines/benchmark", "pipelines/evaluate")  # scripts that are no commands
JOBS = {"demo", "embed", "backfill", "describe", "train"}


@cache
def app_of(name: str) -> App:
    """Of a command of lance-align, or of another script."""
    if name in COMMANDS:
        return cast("App", importlib.import_module(f"lance_align.cli.{name}").app)
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    spec.loader.exec_module(module)
    return cast("App", module.app)


def understood(name: str, words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a command's function."""
    _, bound, _ = app_of(name).parse_args(list(words), exit_on_error=False, print_error=False)
    return dict(bound.arguments)


def test_a_terminal_without_unicode_gets_escapes() -> None:
    code = "from lance_align.cli.command import application; application('x', None); print('Zürich 猫 \\udcff')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "Z\\xfcrich \\u732b \\udcff\n"), done.stderr


def words_for(option: str, kind: Any) -> tuple[list[str], Any]:
    """What somebody types for an option of a type, and what arrives."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return words_for(option, inside[0])
    if origin in (types.UnionType, typing.Union):
        return words_for(option, next(each for each in inside if each is not type(None)))
    if origin is Literal:
        return [option, str(inside[0])], inside[0]
    if origin is dict:
        return [f"{option}.region", "eu", f"{option}.endpoint", "http://x"], {"region": "eu", "endpoint": "http://x"}
    if origin is not None and issubclass(origin, Sequence):
        word, value = words_for("", inside[0])
        return [option, word[1], word[1]], [value, value]
    if kind is bool:
        return [option], True
    samples = {int: ("3", 3), float: ("0.5", 0.5), str: ("a b", "a b")}
    word, value = samples.get(kind, ("some/path", Path("some/path")))
    return [option, word], value


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
def test_every_option_can_be_given(name: str) -> None:
    command = app_of(name).default_command
    assert command is not None
    hints = command.__annotations__ if name in JOBS else typing.get_type_hints(command, include_extras=True)
    needed: list[str] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.default is parameter.empty:
            needed += words_for(f"--{parameter.name.replace('_', '-')}", hints[parameter.name])[0]
    checked = 0
    for parameter in inspect.signature(command).parameters.values():
        if parameter.default is not parameter.empty:
            own = {"json_path": "--json", "json_lines": "--json"}.get(
                parameter.name, f"--{parameter.name.replace('_', '-')}"
            )
            words, value = words_for(own, hints[parameter.name])
            found = understood(name, [*needed, *words])[parameter.name]
            assert found == value or str(found) == str(value), parameter.name
            checked += 1
    assert checked >= (0 if name == "models" else 4)


def commands() -> list[tuple[str, list[str]]]:
    """Name and words of each command in README's blocks."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    found = []
    for line in blocks.splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["lance-align"]:
                found.append((words[1], words[2:]))
            elif words[:1] == ["python"] and words[1].startswith("pipelines/"):
                script = words[1].removesuffix(".py")
                found.append((script if script in OTHERS else Path(script).name, words[2:]))
    return found


def test_the_commands_of_readme_are_understood() -> None:
    assert {name for name, _ in commands()} >= {"embed", "backfill", "describe"}
    for name, words in commands():
        if words and "--demo" not in words:  # without any, the demo is made
            assert understood(name, words), (name, words)


def test_the_options_that_readme_names_exist() -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]+)", README))
    assert len(named) > 30
    known = {
        word
        for name in [*COMMANDS, *OTHERS]
        for argument in app_of(name).assemble_argument_collection()
        for word in argument.names
    }
    others = {"--working-dir", "--budget-seconds", "--help", "--debug", "--demo"}  # of Ray, the GPU benchmark, all
    assert sorted(named - known - others) == []


def test_a_list_may_be_repeated_or_take_several_words() -> None:
    expected = ["a.com", "*.b.org"]
    assert understood("embed", ["in", "--table", "t", "--fetch-hosts", *expected])["fetch_hosts"] == expected
    twice = ["in", "--table", "t", "--fetch-hosts", "a.com", "--fetch-hosts", "*.b.org"]
    assert understood("embed", twice)["fetch_hosts"] == expected


@pytest.mark.parametrize(
    "words", [["in"], ["in", "--table", "t", "--colour", "red"], ["in", "--table", "t", "--keep", "x"]]
)
def test_what_is_not_understood_is_refused(words: list[str]) -> None:
    with pytest.raises(CycloptsError):
        understood("embed", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed"], "SOURCE is missing; expected a folder of images"),
        (["embed", "in.parquet"], "--table is missing; expected the table's name"),
        (["embed", "in.parquet", "--tabl", "t"], "Did you mean --table"),
        (["embed", "in.parquet", "other", "--table", "t"], "'other' is one too many: one source a run"),
        (["embed", "in.parquet", "--table", "t", "--prompt", "x"], "--prompt is an option of lance-align describe"),
        (["embed", "in.parquet", "--table", "t", "--keep", "tumbnail"], 'Did you mean "thumbnail"?'),
        (["serach", "x"], "there is no command 'serach'; did you mean 'search'? the commands are demo, embed"),
        (["embed", "inn.parquet", "--table", "t"], "inn.parquet does not exist; did you mean 'in.parquet'?"),
        (["embed", "in.parquet", "--table", "t", "--model", "fake", "--text", "captoin"], "did you mean 'caption'?"),
        (["embed", "in.parquet", "--table", "t", "--model", "fake", "--drop", "captoin"], "did you mean 'caption'?"),
        (["embed", "in.parquet", "--table", "t", "--model", "align-tyny"], "did you mean 'align-tiny'?"),
        (
            ["embed", "in.parquet", "--table", "t", "--model", "openai/clip-vit-base-patch-32"],
            "did you mean 'openai/clip-vit-base-patch32'?",
        ),
        (
            ["search", "x", "--table", "photo"],
            "photo.lance is not there; did you mean 'photos'? the database has photos",
        ),
        (["backfill", "--table", "photo"], "photo.lance is not there; did you mean 'photos'? the database has photos"),
        (["verify", "--table", "photo"], "did you mean 'photos'?"),
        (["evaluate", "--table", "photos", "--text", "captoin"], "did you mean 'caption'?"),
    ],
)
def test_a_misspelt_word_is_answered_with_what_was_meant(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parquet(pictures(2), tmp_path / "in.parquet")
    embed(tmp_path / "in.parquet", table="photos", model="fake", progress=False)
    with pytest.raises(SystemExit) as left:
        main(*words, *(["--no-progress"] if words[0] in ("embed", "backfill") else []))
    assert left.value.code in (1, 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert "fake" not in line.replace("--model fake", "")
