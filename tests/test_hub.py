"""Checkpoints from a hub: a local HTTP server that answers as the hub does, asked through huggingface_hub itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lance_align.benchmarks import weights
from lance_align.encoders import resolve_spec
from tests import align_models

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
REPOSITORY = "someone/small-align"


class Hub(ThreadingHTTPServer):
    """One repository with the files of a directory; notes which files are asked for."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.directory = directory
        self.fetched: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        files = sorted(path for path in self.server.directory.iterdir() if path.is_file())
        if path == f"/api/models/{REPOSITORY}/revision/main":
            siblings = [{"rfilename": file.name} for file in files]
            self._json({"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            self._json([{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _digest(f)} for f in files])
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self._file(self.server.directory / path.rpartition("/")[2])
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815  # the name http.server looks for

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path) -> None:
        self.server.fetched.add(path.name)
        self._send(200, path.read_bytes(), {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Quiet."""


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    directory = tmp_path_factory.mktemp("hub")
    model = weights.build_model(align_models.small_config(), seed=5, warm_up=8)
    align_models.save_checkpoint(model, directory, preprocessor=align_models.SMALL_PREPROCESSOR)
    (directory / "pytorch_model.bin").write_bytes(b"a pickle")
    (directory / "modeling_evil.py").write_text("raise SystemExit")
    with Hub(directory) as server:
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
    assert missing.startswith("model 'someone/nothing' is not in the local cache and the hub cannot be reached")
