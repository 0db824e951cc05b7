"""URLs in data: fetched from named hosts at public addresses only, whatever their servers do."""

from __future__ import annotations

import gzip
import ipaddress
import pickle
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lance_align.errors import ArgumentError, RowError
from lance_align.fetching import FetchPolicy, fetch, fetch_policy
from lance_align.fetching.addresses import is_public
from lance_align.fetching.client import MAX_REDIRECTS
from tests.web import Web, body, closed_port, endless, in_turn, policy, raw, serving, status

DATA = b"\x89PNG data"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def get(web: Web, path: str, *, max_bytes: int = 1000, host: str = "images.test", **changes: object) -> bytes:
    allowed = policy(f"{host}:{web.port}", **changes)
    return fetch(f"http://{host}:{web.port}{path}", allowed, max_bytes=max_bytes, resolve=loopback)


def refusal(url: str, allowed: FetchPolicy, resolve: object = loopback) -> str:
    with pytest.raises(RowError) as caught:
        fetch(url, allowed, max_bytes=1000, resolve=resolve)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    answers = {
        "/a.png": body(DATA),
        "/chunked": raw(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
        "/until-closed": body(DATA, Content_Length=""),
        "/moved": status(302, Location="/a.png"),
        "/too-large": body(b"x" * 1001),
        "/huge-announced": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        "/endless": endless(CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n"),
        "/endless-until-closed": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1024),
        "/endless-head": endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"x" * 1024 + b"\r\n"),
        "/endless-100": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.01),
        "/dripping": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pause_s=0.1),
        "/dripping-head": endless(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", pause_s=0.1),
        "/silent": raw(b"", pause_s=5.0),
        "/short": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        "/long": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlonger than announced"),
        "/negative": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        "/two-lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx"),
        "/not-http": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "/empty-reply": raw(b""),
        "/bad-chunk": raw(CHUNKED + b"zz\r\n"),
        "/gzip": body(gzip.compress(bytes(10**6)), Content_Encoding="gzip"),
        "/switching": raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        "/nothing": status(204),
        "/forbidden": status(403),
        "/moved-nowhere": status(302),
        "/loop": status(302, Location="/loop"),
        "/busy-once": in_turn(status(503), body(DATA)),
        "/cut-once": in_turn(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), body(DATA)),
        "/busy": status(503),
    } | {f"/hop{left}": status(301, Location=f"hop{left - 1}" if left > 1 else "a.png") for left in range(1, 8)}
    with serving(answers) as running:
        yield running


@pytest.mark.parametrize("path", ["/a.png", "/a.png?x=1#part", "/until-closed", "/moved", f"/hop{MAX_REDIRECTS}"])
def test_the_body_of_a_url(web: Web, path: str) -> None:
    assert get(web, path) == DATA


def test_chunked_bodies(web: Web) -> None:
    assert get(web, "/chunked") == b"hello"


def test_a_request_tells_nothing_of_the_user(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert get(web, "/moved?first") == DATA
    for path, headers in web.seen[-2:]:
        assert path in ("/moved?first", "/a.png")
        assert headers == {
            "host": f"images.test:{web.port}",
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": "lance-align",
        }


@pytest.mark.parametrize("path", ["/too-large", "/huge-announced", "/endless", "/endless-until-closed"])
def test_bodies_over_the_limit_are_not_read(web: Web, path: str) -> None:
    with pytest.raises(RowError, match=rf"^too_large: http://images\.test:{web.port}{path}: .*1000"):
        get(web, path)


@pytest.mark.parametrize("path", ["/dripping", "/dripping-head", "/silent", "/endless-100"])
def test_slow_servers_are_left_at_the_deadline(web: Web, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(RowError, match=rf"^fetch: http://images\.test:{web.port}{path}: took longer than 0\.5 s$"):
        get(web, path, timeout_s=0.5)
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/short", "without sending complete message body"),
        ("/negative", "Content-Length"),
        ("/two-lengths", "Content-Length"),
        ("/not-http", "RemoteProtocolError"),
        ("/empty-reply", "disconnected without sending a response"),
        ("/bad-chunk", "chunk"),
        ("/endless-head", "RemoteProtocolError"),
        ("/gzip", "answered in gzip, though only plain was asked for"),
        ("/switching", "RemoteProtocolError"),
        ("/nothing", "answered 204 No Content"),
        ("/forbidden", "answered 403 Forbidden"),
        ("/unknown", "answered 404 Not Found"),
        ("/moved-nowhere", "answered 302 Found"),
        ("/busy", "answered 503 Service Unavailable"),
        ("/loop", f"more than {MAX_REDIRECTS} redirects"),
        (f"/hop{MAX_REDIRECTS + 1}", f"more than {MAX_REDIRECTS} redirects"),
    ],
)
def test_bad_answers_are_a_reason(web: Web, path: str, said: str) -> None:
    with pytest.raises(RowError, match=f"^fetch: http://images.test:{web.port}{path}: .*{said}"):
        get(web, path)


def test_what_follows_the_announced_body_is_not_read(web: Web) -> None:
    assert get(web, "/long") == b"long"
    assert get(web, "/a.png") == DATA


@pytest.mark.parametrize("path", ["/busy-once", "/cut-once"])
def test_servers_that_fail_in_passing_are_asked_again(web: Web, path: str) -> None:
    assert get(web, path) == DATA
    assert web.paths[-2:] == [path, path]


def test_a_server_that_keeps_failing_is_asked_three_times(web: Web) -> None:
    before = len(web.seen)
    with pytest.raises(RowError, match="503"):
        get(web, "/busy")
    assert len(web.seen) - before == 3
    with pytest.raises(RowError, match="403"):
        get(web, "/forbidden")
    assert len(web.seen) - before == 4  # waiting would not help


def test_a_port_that_nobody_listens_on() -> None:
    port = closed_port()
    assert "ConnectError" in refusal(f"http://images.test:{port}/", policy(f"images.test:{port}"))


# Which hosts


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (("example.com",), "http://example.com/", True),
        (("example.com",), "https://EXAMPLE.com./", True),
        (("Example.COM.",), "https://example.com/", True),
        (("example.com",), "https://example.com:80/", True),
        (("example.com",), "https://example.com:8443/", False),
        (("example.com:8443",), "https://example.com:8443/", True),
        (("example.com:8443",), "https://example.com/", False),
        (("example.com",), "https://a.example.com/", False),
        (("example.com",), "https://example.com.evil.test/", False),
        (("example.com",), "https://evilexample.com/", False),
        (("*.example.com",), "https://a.b.example.com/", True),
        (("*.example.com",), "https://example.com/", False),
        (("*.example.com",), "https://evilexample.com/", False),
        (("*",), "https://anything.test/", True),
        (("*",), "https://anything.test:22/", False),
        (("xn--bcher-kva.example",), "https://bücher.example/", True),
        (("example.com",), "https://example。com/", True),  # an ideographic full stop is a dot
        (("[2606:4700::1]",), "http://[2606:4700::1]/", True),
        ((), "https://example.com/", False),
    ],
)
def test_only_listed_hosts_and_ports(hosts: tuple[str, ...], url: str, allowed: bool) -> None:
    asked: list[str] = []

    def nowhere(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        raise OSError("no such name")

    said = refusal(url, FetchPolicy(hosts=hosts, timeout_s=1), nowhere)
    assert ("was not found" in said) is allowed
    assert bool(asked) is allowed  # an unlisted name is not even looked up


@pytest.mark.parametrize(
    "url",
    [
        "http://user@example.com/",
        "http://user:pass@example.com/",
        "http://example.com@evil.test/",
        "http://evil.test\\@example.com/",
        "http://evil.test#@example.com/",
        "http://evil.test/?@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "http:example.com",
        "http:///example.com",
        "http://",
        "http://%65xample.com/",
        "http://exam\nple.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:80:443/",
        "http://exa mple.com/",
        "http://[::1",
        "http://example.com\0.evil.test/",
        "",
        "x" * 100_000,
    ],
)
def test_odd_urls_lead_nowhere(url: str) -> None:
    assert refusal(url, policy("example.com")).startswith("fetch: ")


@pytest.mark.parametrize("user", ["user@", "user:pass@", ":pass@", "user:@"])
def test_urls_with_a_user_are_refused_before_anything_is_looked_up(user: str) -> None:
    said = refusal(f"http://{user}example.com/", policy("example.com"))
    assert said == "fetch: http://example.com/: URLs with a user name or password are not fetched"


def test_secrets_in_a_url_stay_out_of_the_reason(web: Web) -> None:
    said = refusal("https://me:secret@example.com/a?token=hidden", policy("example.com"))
    assert "secret" not in said
    assert "hidden" not in said
    with pytest.raises(RowError) as caught:
        get(web, "/forbidden?token=hidden#hidden")
    assert "hidden" not in str(caught.value)


# Which addresses

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.8.8.8 168.63.129.16 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1
    203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:7f00:1 64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1
    100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::
    2002:a00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%1 2606:4700::1%1 fec0::1 ff02::1
""".split()  # noqa: SIM905
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 93.184.216.34 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
    169.253.255.255 172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255 198.17.255.255 198.20.0.1 223.255.255.255
    2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450::1 2003::1
""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", PRIVATE)
def test_names_of_private_addresses_are_refused(address: str) -> None:
    """The private one of several is enough, wherever it stands."""
    for found in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        said = refusal("http://example.com/", FetchPolicy(hosts=("*",)), lambda *_, found=found: found)
        assert "which is not a public address" in said


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses())
@settings(max_examples=500)
def test_what_python_calls_private_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved or not address.is_global:
        assert not is_public(address)


def _spellings(packed: int) -> st.SearchStrategy[str]:
    """Ways to write an IPv4 address that one resolver or another understands."""
    parts = list(packed.to_bytes(4, "big"))

    def number(value: int) -> st.SearchStrategy[str]:
        zeros = st.integers(0, 3).map(lambda count: "0" * count)
        return st.one_of(
            st.just(str(value)),
            zeros.map(lambda zero: f"0{zero}{value:o}"),
            zeros.map(lambda zero: f"0x{zero}{value:x}"),
            st.just(f"0X{value:X}"),
        )

    tails = [packed, packed & 0xFFFFFF, packed & 0xFFFF, packed & 0xFF]
    dotted = [
        st.tuples(*(number(part) for part in parts[:count]), number(tails[count])).map(".".join) for count in range(4)
    ]
    v4 = ipaddress.IPv4Address(packed)
    mapped = [f"[::ffff:{v4}]", f"[::{v4}]", f"[64:ff9b::{v4}]", f"[2002:{packed >> 16:x}:{packed & 0xFFFF:x}::]"]
    wide = str(v4).translate({ord(digit): 0xFF10 + int(digit) for digit in "0123456789"})
    circled = "".join(chr(0x2460 + int(c) - 1) if c in "123456789" else "⓪" if c == "0" else "。" for c in str(v4))
    plain = st.one_of(*dotted, st.sampled_from([*mapped, wide, circled, str(v4).replace(".", "。")]))
    return st.tuples(plain, st.sampled_from(["", ".", ".."])).map("".join)


@given(
    st.sampled_from(["127.0.0.1", "169.254.169.254", "10.1.2.3", "192.168.0.1", "0.1.0.1"]).flatmap(
        lambda text: _spellings(int(ipaddress.IPv4Address(text)))
    )
)
@example("2130706433")
@example("0177.1")
@example("0x7f.1")
@example("127.1")
@example("localhost")
@example("[::]")
@settings(max_examples=300, deadline=None)
def test_no_spelling_of_a_private_address_gets_through(host: str) -> None:
    """With every host allowed and the system's own resolver."""
    with pytest.raises(RowError, match=r"^fetch: .*(not a public address|was not found|is not a URL|names no host)"):
        fetch(f"http://{host}/", FetchPolicy(hosts=("*",), timeout_s=10), max_bytes=10)


def test_the_address_that_was_checked_is_dialled(web: Web) -> None:
    """A name that changes its address between two looks (DNS rebinding) gains nothing: there is one look."""
    asked: list[str] = []

    def changing(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    allowed = policy(f"images.test:{web.port}", allowed_networks=("127.0.0.1/32",))
    assert fetch(f"http://images.test:{web.port}/a.png", allowed, max_bytes=100, resolve=changing) == DATA
    assert asked == ["images.test"]
    said = refusal(f"http://images.test:{web.port}/a.png", allowed, changing)
    assert "127.0.0.2, which is not a public address" in said


def test_the_next_address_is_tried_where_one_is_dead(web: Web) -> None:
    allowed = policy(f"images.test:{web.port}")
    url = f"http://images.test:{web.port}/a.png"
    assert fetch(url, allowed, max_bytes=100, resolve=lambda *_: ["127.0.0.9", "127.0.0.1"]) == DATA


@pytest.mark.parametrize("found", [[], OSError("no such name"), UnicodeError("label too long")])
def test_names_without_an_address(found: list[str] | Exception) -> None:
    def nothing(_host: str, _port: int) -> Sequence[str]:
        if isinstance(found, Exception):
            raise found
        return found

    assert "example.com" in refusal("http://example.com/", policy("example.com", timeout_s=1), nothing)


# Redirects


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1:{port}/a.png", "127.0.0.1 at port {port} is not on the list"),
        ("http://evil.test:{port}/a.png", "evil.test at port {port} is not on the list"),
        ("//evil.test/a.png", "evil.test at port 80 is not on the list"),
        ("http://images.test:22/a.png", "images.test at port 22 is not on the list"),
        ("http://inner.test:{port}/a.png", "inner.test is 10.0.0.1, which is not a public address"),
        ("http://user@images.test:{port}/a.png", "URLs with a user name"),
        ("ftp://images.test/a.png", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("gopher://images.test:{port}/x", "neither http nor https"),
        ("http://[", "redirects to http://%5b names no host"),
        ("http://a\x01b/", "redirects to what is not a URL"),
    ],
)
def test_redirects_go_through_every_check_again(web: Web, location: str, said: str) -> None:
    def resolve(host: str, _port: int) -> Sequence[str]:
        return ["10.0.0.1"] if host == "inner.test" else ["127.0.0.1"]

    answers = {"/start": status(302, Location=location.format(port=web.port))}
    with serving(answers) as start:
        allowed = policy(
            *(f"{host}:{port}" for host in ("images.test", "inner.test") for port in (start.port, web.port))
        )
        before = len(web.seen)
        message = refusal(f"http://images.test:{start.port}/start", allowed, resolve)
    assert said.format(port=web.port) in message
    assert len(web.seen) == before


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of images.test that is its own authority, with its key."""
    path = tmp_path_factory.mktemp("tls") / "images.test.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=images.test -addext subjectAltName=DNS:images.test -keyout {path} -out {path}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def secure(certificate: Path) -> Iterator[Web]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving({"/a.png": body(DATA), "/down": status(302, Location="http://images.test/a.png")}, tls=context) as web:
        yield web


def test_certificates_are_checked_against_the_name_not_the_address(secure: Web, certificate: Path) -> None:
    allowed = policy(*(f"{host}:{secure.port}" for host in ("images.test", "other.test", "127.0.0.1")))
    trusting = FetchPolicy(hosts=allowed.hosts, allowed_networks=allowed.allowed_networks, ca_file=str(certificate))
    url = f"https://images.test:{secure.port}/a.png"
    assert fetch(url, trusting, max_bytes=100, resolve=loopback) == DATA
    for host in ("other.test", "127.0.0.1"):
        said = refusal(f"https://{host}:{secure.port}/a.png", trusting)
        assert "its certificate is not valid" in said
        assert "mismatch" in said
    assert "self-signed" in refusal(url, allowed)  # the system does not know this authority
    assert secure.paths == ["/a.png"]


def test_https_never_leads_to_http(secure: Web, certificate: Path) -> None:
    allowed = policy(f"images.test:{secure.port}", "images.test", ca_file=str(certificate))
    said = refusal(f"https://images.test:{secure.port}/down", allowed)
    assert "redirects from https to http://images.test/a.png" in said


# Policies


@pytest.mark.parametrize(
    "host",
    ["", "http://example.com", "example.com/path", "a*.example.com", "*.*.com", "ex ample", "a:b", "a:0", "a:65536"],
)
def test_hosts_that_cannot_be_meant(host: str) -> None:
    with pytest.raises(ArgumentError, match="is not a host to fetch from; expected a name such as"):
        fetch_policy([host])


def test_policies_are_checked_small_and_sendable() -> None:
    made = fetch_policy(("B.example.", "*.Example.org:8443"))
    assert made.hosts == ("b.example", "*.example.org:8443")
    assert fetch_policy(made) is made
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301  # our own bytes
    assert fetch_policy(()) == FetchPolicy()
    with pytest.raises(ArgumentError, match=r"fetch_hosts='example\.com'; expected a list"):
        fetch_policy("example.com")
    with pytest.raises(ArgumentError, match="allowed_networks holds '10'"):
        FetchPolicy(allowed_networks=("10",))
    with pytest.raises(ArgumentError, match="timeout_s=0"):
        FetchPolicy(timeout_s=0)
