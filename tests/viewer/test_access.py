"""Who is let in: the viewer's own page, and nobody else's."""

import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas3r.cli.main import main
from nas3r.viewer import Viewer
from nas3r.viewer.access import free_port, guarded_servers, is_allowed

viser = pytest.importorskip("viser")
client = pytest.importorskip("websockets.sync.client")


@pytest.fixture(scope="module")
def viewer(saved_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("served") / "result"
    shutil.copytree(saved_result, folder)
    served = Viewer(folder, port=18080)
    yield served
    served.stop()


def connect(viewer: Viewer, origin: str | None, host: str | None = None) -> int:
    """Status of a WebSocket handshake; 101 is a connection."""
    from websockets.exceptions import InvalidStatus

    port = viewer.server.get_port()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            with client.connect(
                f"ws://{host or f'127.0.0.1:{port}'}",
                sock=connection,
                origin=origin,
                subprotocols=[f"viser-v{viser.__version__}"],
            ):
                return 101
        except InvalidStatus as error:
            return error.response.status_code


def get(viewer: Viewer, host: str | None = None, origin: str | None = None) -> int:
    headers = {"Host": host} if host else {}
    request = urllib.request.Request(viewer.url, headers=headers | ({"Origin": origin} if origin else {}))
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_own_page_and_programs_get_in(viewer: Viewer) -> None:
    port = viewer.server.get_port()
    assert get(viewer) == 200
    assert connect(viewer, None) == 101
    assert connect(viewer, f"http://127.0.0.1:{port}") == 101
    assert connect(viewer, f"http://localhost:{port}", f"localhost:{port}") == 101
    assert connect(viewer, "http://localhost:9000", "localhost:9000") == 101  # through a tunnel


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:18080",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1",
        "file://",
        "http://127.0.0.1:18080.evil.example",
        "http://[",
    ],
)
def test_pages_of_other_origins_are_refused(viewer: Viewer, origin: str) -> None:
    assert connect(viewer, origin) == 403
    assert get(viewer, origin=origin) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:18080", "127.0.0.1.evil.example", "localhost.evil"]
)
def test_names_that_were_made_to_point_here_are_refused(viewer: Viewer, host: str) -> None:
    assert get(viewer, host) == 403
    assert connect(viewer, f"http://{host}", host) == 403


def test_a_refused_page_makes_no_files(viewer: Viewer) -> None:
    before = sorted(viewer.folder.iterdir())
    connect(viewer, "http://evil.example")
    assert sorted(viewer.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("headers", "host", "allowed"),
    [
        ({}, "127.0.0.1", False),
        ({"Host": ""}, "127.0.0.1", False),
        ({"Host": "["}, "127.0.0.1", False),
        ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, "::1", True),
        ({"Host": "192.168.1.5:8080", "Origin": "http://192.168.1.5:8080"}, "0.0.0.0", True),
        ({"Host": "LocalHost:8080", "Origin": "http://localhost:8080"}, "127.0.0.1", True),
        ({"Host": "viewer.lan", "Origin": "http://viewer.lan"}, "viewer.lan", True),
        ({"Host": "viewer.lan", "Origin": "http://viewer.lan"}, "0.0.0.0", False),
        ({"Host": socket.gethostname()}, "0.0.0.0", True),
        ({"Host": socket.gethostname().partition(".")[0] + ".local"}, "0.0.0.0", True),
        ({"Host": socket.gethostname().partition(".")[0] + ".evil.example"}, "0.0.0.0", False),
    ],
)
def test_what_is_allowed(headers: dict[str, str], host: str, allowed: bool) -> None:
    assert is_allowed(headers, host) is allowed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "70000"], "--port: expected an integer from 1 to 65,535"),
        (["--port", "0"], "--port: expected"),
        (["--port", "-1"], "--port: expected"),
        (["--host", ""], "host: expected an address to listen on"),
        (["--host", "  "], "host: expected an address to listen on"),
        (["--host", "no.such.name.invalid"], "no address of that name"),
        (["--host", "203.0.113.7"], "no port from 8080 on can be listened on"),
    ],
)
def test_addresses_that_cannot_be_listened_on(options, says, saved_result, capsys) -> None:
    assert main(["view", str(saved_result), *options]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_no_port_beyond_the_last(saved_result: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 65535))
        busy.listen()
        with pytest.raises(ValueError, match="no port from 65535 on"):
            free_port("127.0.0.1", 65535)


def test_a_server_that_cannot_be_protected_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="cannot be protected"), guarded_servers("127.0.0.1"):
        pass
