"""What a table says about itself is data: it works or gives our error, and makes us load, run and fetch nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import lancedb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lancedb.embeddings import EmbeddingFunction, get_registry, register

import lance_align
from lance_align.benchmarks.weights import build_model
from lance_align.errors import LanceAlignError, MissingExtraError, ModelError, RowError
from lance_align.functions import table_function
from lance_align.tables.commits import Committer
from lance_align.tables.schema import FUNCTIONS_KEY, SPEC_KEY, check_fits
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.fake_tables import RED, photos_schema, png, rows
from tests.tripwires import tripwires

Json = Any


@pytest.fixture(scope="module")
def unlisted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that would load, if anyone asked for it."""
    model = build_model(small_config(), seed=0, warm_up=2)
    return save_checkpoint(model, tmp_path_factory.mktemp("unlisted"), preprocessor=SMALL_PREPROCESSOR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tables go; a plain one was used once, so that whatever is imported at first use is in memory."""
    place = tmp_path_factory.mktemp("tables")
    write(place / "db", dict(photos_schema().metadata or {}))
    for use in USES.values():
        use(place / "db")
    encoder = lance_align.load_encoder("align-tiny")  # a listed model that tables may name instead
    encoder.encode_texts(["x"])
    encoder.encode_images([png(RED)])
    return place


def write(db: Path, metadata: dict[bytes, bytes]) -> None:
    """A table of one row with this schema metadata, as anyone can write it with Lance."""
    table = rows([RED], images=[png(RED)], captions=["a red square"])
    lance.write_dataset(table.replace_schema_metadata(metadata), str(db / "photos.lance"), mode="overwrite")


def opened(db: Path) -> Any:
    return lancedb.connect(db).open_table("photos")


def use_labels(db: Path) -> None:
    table = opened(db)
    lance_align.add_labels(table, ["a", "b"])
    table.drop_columns(["label", "label_probability"])


def use_committer(db: Path) -> None:
    Committer.open_or_create(str(db / "photos.lance"), photos_schema())


def use_check(db: Path) -> None:
    check_fits(lance.dataset(str(db / "photos.lance")).schema, photos_schema(), uri="here")


def use_function(db: Path) -> None:
    function = table_function(opened(db).schema, "vector")
    if function is not None:
        function.compute_query_embeddings_with_retry("x")
        function.compute_source_embeddings_with_retry([png(RED)])
        function.ndims()


# Everything of ours that reads a table's metadata.
USES: dict[str, Callable[[Path], object]] = {
    "labels": use_labels,
    "committer": use_committer,
    "check": use_check,
    "function": use_function,
    "verify": lambda db: lance_align.verify(opened(db)),
    "attach": lambda db: lance_align.attach(opened(db), image="image", model="fake"),
}


@contextlib.contextmanager
def harmless(unlisted: Path) -> Iterator[None]:
    """Our error or none; nothing opened, run, imported or fetched on the way."""
    said: list[str] = []
    with tripwires(unlisted, Path("/etc/passwd")) as seen:
        try:
            yield
        except LanceAlignError as error:
            said.append(str(error).replace("\u200c", "").replace("\u200d", ""))
    assert seen == []
    assert all(map(str.isprintable, said))


# Metadata: valid JSON with changes

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 1 << 64, 2**31, 0, -1])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "align",
            "fake",
            "huggingface",
            "tripwire",
            "align-tiny",
            "evil/model",
            "../../evil",
            "~/evil",
            "/etc/passwd",
            "file:///etc/passwd",
            "https://evil.test/model",
            "\\\\evil\\share",
            "$var:secret",
            "$var:secret:default",
            "$var:",
            "refs/pr/1",
            "cuda:999",
            "os.system",
            "__import__('os').system('true')",
            "\0",
            "\n\x1b[2J",
            "a" * 100_000,
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def mutated(value: Json, replacement: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """The value with a few of its parts, at any depth, replaced, removed, doubled or added to."""

    def change(draw: st.DrawFn, part: Json, depth: int) -> Json:
        if depth and draw(st.integers(0, 6)) == 0:
            return draw(replacement)
        if isinstance(part, dict):
            changed = {key: change(draw, inner, depth + 1) for key, inner in part.items() if draw(st.integers(0, 15))}
            if draw(st.integers(0, 4)) == 0:
                changed |= draw(st.dictionaries(odd_keys, replacement, max_size=2))
            return changed
        if isinstance(part, list):
            times = [draw(st.sampled_from([1, 1, 1, 2, 0])) for _ in part]
            return [
                change(draw, inner, depth + 1) for inner, count in zip(part, times, strict=True) for _ in range(count)
            ]
        return part

    @st.composite
    def strategy(draw: st.DrawFn) -> Json:
        return change(draw, value, 0)

    return strategy()


odd_keys = st.sampled_from(
    ["cls", "self", "__class__", "model_config", "trust_remote_code", "name", "model", "source_column", "family"]
) | st.text(max_size=8)
FUNCTIONS = json.loads((photos_schema().metadata or {})[FUNCTIONS_KEY])
SPECS = json.loads((photos_schema().metadata or {})[SPEC_KEY])

# Lance takes UTF-8 alone.
texts = (st.text(max_size=200) | st.sampled_from(["", "[]", "{}", "null", "NaN", "[Infinity]", '"' * 9])).map(
    str.encode
)
deep = st.sampled_from([b"[[[[", b"[" * 100_000, b'{"a":' * 100_000, b"[" * 900 + b"]" * 900])


def as_json(value: st.SearchStrategy[Json]) -> st.SearchStrategy[bytes]:
    return value.map(lambda found: json.dumps(found).encode())


function_lists = as_json(mutated(FUNCTIONS, junk) | junk) | texts | deep
spec_records = as_json(mutated(SPECS, junk) | junk) | texts | deep
metadata = st.fixed_dictionaries({}, optional={FUNCTIONS_KEY: function_lists, SPEC_KEY: spec_records})

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("use", USES)
@given(found=metadata)
@SETTINGS
def test_whatever_the_metadata_says_it_works_or_gives_our_error(
    use: str, found: dict[bytes, bytes], folder: Path, unlisted: Path
) -> None:
    write(folder / "db", found)
    with harmless(unlisted):
        USES[use](folder / "db")


@given(
    arguments=mutated(FUNCTIONS[0]["model"], junk),
    source=st.sampled_from(["image", "caption", "id", "vector", "", "no such column"]),
)
@SETTINGS
def test_whatever_our_entry_says_search_and_add_work_or_give_our_error(
    arguments: Json, source: str, folder: Path, unlisted: Path
) -> None:
    """LanceDB calls us here. With an entry of another shape or another name it raises errors of its own."""
    entry = {"name": "align", "model": arguments, "source_column": source, "vector_column": "vector"}
    write(folder / "db", {FUNCTIONS_KEY: json.dumps([entry]).encode()})
    with harmless(unlisted):
        table = opened(folder / "db")
        assert table.count_rows() == 1
        table.search([0.0] * 32).limit(1).to_list()
        try:
            table.search("words").limit(1).to_list()
            if source == "image":
                table.add([{"id": "new", "image": png(RED)}], on_bad_vectors="null")
        except ValueError as error:  # LanceDB's, where the entry names a listed model of another dim
            if isinstance(error, LanceAlignError):
                raise
            assert "query dim(256) doesn't match" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "name",
    ["{unlisted}", "{unlisted}/../{name}", "{unlisted}/.", "file://{unlisted}", "{relative}", "evil/model", "./x"],
)
@pytest.mark.parametrize("use", ["search", *USES])
def test_an_unlisted_model_is_not_even_opened(
    name: str, use: str, folder: Path, unlisted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unlisted.parent)
    name = name.format(unlisted=unlisted, name=unlisted.name, relative=unlisted.name)
    spec = lance_align.resolve_spec(unlisted)
    entry = {**FUNCTIONS[0], "model": {**FUNCTIONS[0]["model"], "name": name, "fingerprint": spec.fingerprint}}
    record = {"vector": {**SPECS["vector"], "name": name, "fingerprint": spec.fingerprint}}
    write(folder / "db", {FUNCTIONS_KEY: json.dumps([entry]).encode(), SPEC_KEY: json.dumps(record).encode()})
    with harmless(unlisted):
        if use == "search":
            opened(folder / "db").search("words")
        else:
            USES[use](folder / "db")


@pytest.mark.parametrize("revision", ["refs/pr/1", "../../..", "a-branch", "", "MAIN", "0" * 39, "0" * 41])
def test_a_table_names_commits_and_no_other_revision(revision: str, folder: Path) -> None:
    """Anyone can put weights under refs/pr/1 of a known repository."""
    arguments = {**FUNCTIONS[0]["model"], "name": "kakaobrain/align-base", "revision": revision}
    write(folder / "db", {FUNCTIONS_KEY: json.dumps([{**FUNCTIONS[0], "model": arguments}]).encode()})
    with tripwires() as seen, pytest.raises(ModelError, match="which is not a commit, so it was not loaded"):
        opened(folder / "db").search("words")
    assert seen == []


class _Tripwire(EmbeddingFunction):
    """A function that someone else registered, and that does things while it is made, as LanceDB's own do."""

    def __init__(self, **_: Any) -> None:
        raise AssertionError("a function that the table names was made")

    def ndims(self) -> int:
        return 32

    def compute_query_embeddings(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def compute_source_embeddings(self, *_: Any, **__: Any) -> list[Any]:
        return []


@pytest.fixture
def _registered() -> Iterator[None]:
    register("tripwire")(_Tripwire)
    yield
    get_registry()._functions.pop("tripwire")  # the registry has no way to forget one


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("ours", [True, False])
def test_functions_of_others_are_not_made_by_us(use: str, ours: bool, folder: Path, unlisted: Path) -> None:
    """LanceDB's ``table.search`` and ``table.add`` make every function a table names, before they call any."""
    theirs = {"name": "tripwire", "model": {"trust_remote_code": True}, "source_column": "id", "vector_column": "v2"}
    entries = [theirs, *FUNCTIONS] if ours else [{**theirs, "vector_column": "vector"}]
    write(folder / "db", {FUNCTIONS_KEY: json.dumps(entries).encode(), SPEC_KEY: json.dumps(SPECS).encode()})
    with harmless(unlisted):
        USES[use](folder / "db")
    if use == "attach" and not ours:  # it has put our own function in the place of theirs
        return
    with pytest.raises(AssertionError, match="was made"):
        opened(folder / "db").search("words")


@given(text=st.text(max_size=50))
@example("a\x1b[31m\nb\u202ec\ud800\u2028d")
def test_errors_are_one_printable_line(text: str) -> None:
    for error in (RowError("missing", text), ModelError(text), MissingExtraError(text, "x")):
        shown = str(error).replace("\u200c", "").replace("\u200d", "")
        assert shown.isprintable()
        shown.encode()


def test_the_tripwires_are_live(unlisted: Path) -> None:
    import pickle
    import socket

    with tripwires(unlisted) as seen:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.connect(("127.0.0.1", 9))
        (unlisted / "config.json").read_bytes()
        exec("1")  # noqa: S102
        pickle.loads(pickle.dumps(Path))  # noqa: S301
    assert [line.split()[0] for line in seen] == ["socket.connect", "open", "compile", "exec", "pickle.find_class"]
    assert pa.schema([]).metadata is None
