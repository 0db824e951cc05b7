"""The job over a column of URLs; and that nothing else in the project opens connections."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import lance_align
from lance_align.errors import JobError, MissingExtraError
from lance_align.fetching import FetchPolicy, fetch
from tests.corpus import parquet, png, stored
from tests.scripts import run_here
from tests.web import body, endless, policy, serving, status

ROOT = Path(__file__).parent.parent


def test_a_job_over_urls(tmp_path: Path) -> None:
    answers = {f"/{number}.png": body(png(number)) for number in range(3)} | {
        "/moved.png": status(301, Location="/0.png"),
        "/away.png": status(302, Location="http://127.0.0.2/0.png"),
        "/page.html": body(b"<html>not found</html>"),
        "/endless.png": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**16),
        "/slow.png": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pause_s=0.1),
    }
    with serving(answers) as web:
        here = f"http://127.0.0.1:{web.port}"
        urls = [f"{here}{path}" for path in answers] + [f"{here}/none.png", "https://other.test/x.png", "local.png"]
        (tmp_path / "local.png").write_bytes(png(9))
        source = parquet(
            pa.table({"id": [url.rsplit("/", 1)[-1] for url in urls], "url": urls}), tmp_path / "a.parquet"
        )
        report = lance_align.embed(
            source,
            db=tmp_path / "db",
            table="photos",
            model="fake",
            image="url",
            keep="uri",
            max_bytes=100_000,
            fetch_hosts=policy(f"127.0.0.1:{web.port}", timeout_s=1.0),
            progress=False,
        )
        assert (report.embedded, report.failed, report.reasons) == (5, 6, {"fetch": 4, "too_large": 1, "format": 1})
        rows = stored(tmp_path / "db", "photos")
        assert sorted(row["uri"] for row in rows) == sorted([*urls[:-1], str(tmp_path / "local.png")])
        errors = {row["uri"].rsplit("/", 1)[-1]: row["error"] for row in rows if row["error"]}
        assert errors["slow.png"] == f"fetch: {here}/slow.png: took longer than 1 s"
        assert "redirects to http://127.0.0.2/0.png: 127.0.0.2 at port 80 is not on the list" in errors["away.png"]
        by_name = {row["uri"].rsplit("/", 1)[-1]: row["vector"] for row in rows}
        assert by_name["0.png"] == by_name["moved.png"] != by_name["1.png"]


def test_a_job_fetches_nothing_by_default(tmp_path: Path) -> None:
    with serving({"/0.png": body(png(0))}) as web:
        source = parquet(pa.table({"url": [f"http://127.0.0.1:{web.port}/0.png"]}), tmp_path / "a.parquet")
        options = {"table": "photos", "db": tmp_path / "db", "model": "fake", "image": "url", "progress": False}
        with pytest.raises(JobError, match=r"none of 1 rows could be embedded \(fetch 1\)"):
            lance_align.embed(source, **options, keep="uri")
        (row,) = stored(tmp_path / "db", "photos")
        assert row["error"].endswith("/0.png: URLs are not fetched; --fetch-hosts allows hosts")
        assert web.seen == []


def test_private_networks_are_not_reachable_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image\nhttp://127.0.0.1/a.png\n")
    command = ["embed.py", tmp_path / "a.csv", "--table", "t", "--db", tmp_path, "--fetch-hosts"]
    for options in (["127.0.0.1", "--fetch-hosts.allowed-networks", "127.0.0.1/32"], ['{"hosts": ["127.0.0.1"]}']):
        status, _, said = run_here(*command, *options)
        assert status in (1, 2)
        assert said.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in said


def test_without_the_client_the_extra_is_named() -> None:
    """Said before anything is read, not row by row."""
    program = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from lance_align.fetching import FetchPolicy, fetch\n"
        "try: fetch('http://a.test/', FetchPolicy(hosts=('a.test',)), max_bytes=1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{MissingExtraError.__name__} {MissingExtraError('httpx2', 'urls')}"


# One function fetches. What the pin allows beside it, and why:
NETWORK_MODULES = frozenset(
    """aiohttp asyncio boto3 botocore ftplib fsspec grpc h11 h2 http httpcore httpcore2 httplib2 httpx httpx2
    huggingface_hub imaplib nntplib paramiko poplib pycurl requests s3fs gcsfs smtplib socket socketserver ssl telnetlib
    urllib urllib3 websockets xmlrpc""".split()  # noqa: SIM905
)
CONNECTING = {"bind", "connect", "connect_ex", "create_connection", "getaddrinfo", "gethostbyname", "listen", "sendto"}
ALLOWED = {
    "lance_align/fetching/client.py": {"httpx2"},  # takes URLs apart
    "lance_align/fetching/dialling.py": {"httpcore2", "httpx2", "socket", "ssl"},  # the sockets of `fetch`
    "lance_align/jobs/cluster.py": {"socket"},  # asks whether the Ray cluster that the user named answers
    "lance_align/encoders/hub.py": {"huggingface_hub"},  # a checkpoint that the user named, or allowed tables to name
    "lance_align/encoders/conversions.py": {"huggingface_hub"},  # of the same checkpoint, where it is a pickle alone
}


def test_one_function_fetches() -> None:
    """No other file of the project imports a network client.

    ``urllib.parse`` only takes texts apart, and pairs of sockets join processes of this machine.
    """
    files = [*(ROOT / "lance_align").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    found = {str(path.relative_to(ROOT)): _network_imports(path) for path in files}
    assert {path: names for path, names in found.items() if names} == ALLOWED


def _network_imports(path: Path) -> set[str]:
    names: set[str] = set()
    attributes: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module)
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rsplit(".", 1)[-1] in (
            "import_module",
            "__import__",
        ):
            names.update(arg.value for arg in node.args if isinstance(arg, ast.Constant))
    found = {name.split(".")[0] for name in names if name != "urllib.parse"} & NETWORK_MODULES
    return found if attributes & CONNECTING else found - {"socket"}


def test_the_fetch_function_is_public() -> None:
    assert callable(fetch)
    assert FetchPolicy().hosts == ()
