"""Checkpoints from a hub: a local HTTP server that answers as the hub does, asked through huggingface_hub itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from lance_align.benchmarks import weights
from lance_align.encoders import resolve_spec
from tests import align_models

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
REPOSITORY = "someone/small-align"
PICKLED = "someone/pickled"
OLD, TAKEN, STRANGE = ("4" * 40, "5" * 40, "6" * 40)  # commits of pull requests


@dataclasses.dataclass(frozen=True)
class Revision:
    """What stands at a commit: files of the hub's directory, and others by content."""

    commit: str
    files: tuple[str, ...]
    others: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


class Hub(ThreadingHTTPServer):
    """Repositories with files of a directory; notes which are asked for."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.directory = directory
        self.fetched: set[str] = set()
        self.repositories: dict[str, dict[str, Revision]] = {}
        self.requests: dict[str, list[tuple[int, str]]] = {}  # number and author of open pull requests

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for name, revisions in self.server.repositories.items():
            if path.startswith((f"/api/models/{name}/", f"/{name}/resolve/")):
                self._of(name, revisions, path.partition(f"{name}/")[2])
                return
        self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815  # the name http.server looks for

    def _of(self, name: str, revisions: dict[str, Revision], asked: str) -> None:
        what, _, rest = asked.partition("/")
        if what == "discussions":
            author = parse_qs(urlsplit(self.path).query)["author"][0]
            self._json(_discussions(name, [it for it in self.server.requests.get(name, []) if it[1] == author]))
            return
        known = {key: each for reference, each in revisions.items() for key in (reference, each.commit)}
        key = next(key for key in known if rest == key or rest.startswith(f"{key}/"))
        revision = known[key]
        content = {file: (self.server.directory / file).read_bytes() for file in revision.files} | dict(revision.others)
        if what == "revision":
            siblings = [{"rfilename": file, "blobId": _digest(data)} for file, data in sorted(content.items())]
            self._json({"id": name, "modelId": name, "sha": revision.commit, "siblings": siblings})
        elif what == "tree":
            files = sorted(content.items())
            self._json([{"type": "file", "path": f, "size": len(data), "oid": _digest(data)} for f, data in files])
        else:
            file = rest.removeprefix(f"{key}/")
            self.server.fetched.add(file)
            data = content[file]
            self._send(200, data, {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": revision.commit})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Quiet."""


class Unwell(ThreadingHTTPServer):
    """A hub with a fault; notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Fails)
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        super().__exit__(*raised)


class _Fails(BaseHTTPRequestHandler):
    server: Unwell

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(503)

    do_HEAD = do_GET  # noqa: N815  # as above

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Quiet."""


def _discussions(name: str, requests: list[tuple[int, str]]) -> dict[str, object]:
    found = [
        {
            "num": number,
            "title": "Adding `safetensors` variant of this model",
            "author": {"name": author},
            "createdAt": "2023-02-02T00:00:00.000Z",
            "status": "open",
            "isPullRequest": True,
            "repo": {"name": name, "type": "model"},
        }
        for number, author in requests
    ]
    return {"discussions": found, "count": len(found), "start": 0}


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    directory = tmp_path_factory.mktemp("hub")
    model = weights.build_model(align_models.small_config(), seed=5, warm_up=8)
    align_models.save_checkpoint(model, directory, preprocessor=align_models.SMALL_PREPROCESSOR)
    (directory / "pytorch_model.bin").write_bytes(b"a pickle")
    (directory / "modeling_evil.py").write_text("raise SystemExit")
    every = tuple(path.name for path in directory.iterdir() if path.is_file())
    pickled = tuple(name for name in every if not name.endswith(".safetensors"))
    with Hub(directory) as server:
        server.repositories[REPOSITORY] = {"main": Revision(COMMIT, every)}
        server.repositories[PICKLED] = {
            "main": Revision(COMMIT, pickled),
            "refs/pr/4": Revision(OLD, every, {"pytorch_model.bin": b"an older pickle"}),
            "refs/pr/5": Revision(TAKEN, every),
            "refs/pr/6": Revision(STRANGE, every, {"model.safetensors": b"anything"}),
        }
        server.requests[PICKLED] = [(6, "stranger"), (4, "SFconvertbot"), (5, "SFconvertbot")]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _ask(*questions: tuple[str, str | None], endpoint: str, cache: Path) -> list[str]:
    """For each name and revision the spec's JSON, or the error's line, from one process that may reach the hub."""
    script = (
        "import json, sys\n"
        "from lance_align.encoders import resolve_spec\n"
        "from lance_align.errors import ModelError\n"
        "for name, revision in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        print(resolve_spec(name, revision=revision).to_json())\n"
        "    except ModelError as error:\n"
        "        print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", script, json.dumps(questions)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(questions), "an answer is one line"
    return answers


@pytest.mark.slow  # a quarter of a minute: two new processes
def test_a_hub_model_is_fetched_by_name_without_code_or_pickles(hub: Hub, tmp_path: Path) -> None:
    found, unknown = _ask((REPOSITORY, None), ("someone/nothing", None), endpoint=hub.address, cache=tmp_path)
    online = json.loads(found)
    assert (online["name"], online["revision"]) == (REPOSITORY, COMMIT)
    expected = {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert hub.fetched == expected
    assert online["fingerprint"] == resolve_spec(hub.directory).fingerprint
    assert unknown == (
        "model 'someone/nothing' is not on the hub, or is private; check the spelling, or run: hf auth login"
    )

    nobody = "http://127.0.0.1:9"  # the discard port
    questions = ((REPOSITORY, None), (REPOSITORY, COMMIT), ("someone/nothing", None))
    newest, pinned, missing = _ask(*questions, endpoint=nobody, cache=tmp_path)
    assert json.loads(newest) == json.loads(pinned) == online
    assert missing.startswith("model 'someone/nothing' is not here and the hub cannot be reached")


@pytest.mark.slow  # half a minute: three new processes
def test_where_main_has_a_pickle_alone_the_hubs_own_conversion_is_taken(hub: Hub, tmp_path: Path) -> None:
    """Made of the same pickle, by the hub's account; later from the cache, without a network too."""
    hub.fetched.clear()
    (found,) = _ask((PICKLED, None), endpoint=hub.address, cache=tmp_path)
    online = json.loads(found)
    assert (online["name"], online["revision"]) == (PICKLED, TAKEN)
    assert online["fingerprint"] == resolve_spec(hub.directory).fingerprint
    assert "pytorch_model.bin" not in hub.fetched

    nobody = "http://127.0.0.1:9"
    newest, pinned = _ask((PICKLED, None), (PICKLED, TAKEN), endpoint=nobody, cache=tmp_path)
    assert json.loads(newest) == json.loads(pinned) == online

    with Unwell() as unwell:
        (answer,) = _ask((PICKLED, None), endpoint=unwell.address, cache=tmp_path)
        assert json.loads(answer) == online
    assert len(unwell.asked) == len(set(unwell.asked)), "nothing is asked again until an answer comes"


@pytest.mark.parametrize("requests", [[], [(4, "SFconvertbot")], [(6, "stranger"), (5, "stranger")]])
def test_no_other_request_stands_in_for_missing_safetensors(
    requests: list[tuple[int, str]], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hub.requests, PICKLED, requests)
    answers = _ask((PICKLED, None), (PICKLED, "main"), endpoint=hub.address, cache=tmp_path)
    assert all("holds no weights; expected model.safetensors" in answer for answer in answers), answers
