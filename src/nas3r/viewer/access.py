"""Who may talk to the viewer: its own page, under a name of this machine, and programs that are no browser.

A server on this machine can be reached by every page that its user's browser shows. Browsers say where a
page comes from (`Origin`) and what it believes to talk to (`Host`). A page of another origin is refused, and
so is a name that is none of ours: somebody else's name that was made to point here would pass for our own.
"""

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

PORTS_TRIED = 100


def check_host(host: str) -> None:
    """Raises ValueError for an address that this machine cannot listen on; an empty one means all of them."""
    if not host.strip():
        raise ValueError("host: expected an address to listen on, as 127.0.0.1, got none")
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(f"host {host!r}: no address of that name is known") from None


def free_port(host: str, first: int) -> int:
    """The first free port from `first` on.

    Raises:
        ValueError: If it is no port, none is free, or the address is not one of this machine.
    """
    if not 1 <= first <= 65535:
        raise ValueError(f"port: expected one from 1 to 65535, got {first}")
    check_host(host)
    family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    reason = ""
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address[0], port))
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            return port
    raise ValueError(f"{host}: no port from {first} on can be listened on ({reason})")


def is_allowed(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request comes from our own page, or from no page.

    Args:
        headers: Of the request, `Host` and `Origin` among them.
        host: Address that the server listens on.
    """
    called, origin = headers.get("Host"), headers.get("Origin")
    if called is None or not _is_ours(_name(called), host):
        return False
    return origin is None or _place(origin) == called.lower()


def _place(origin: str) -> str:
    """Name and port of an Origin header."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(called: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{called}").hostname or "").lower()
    except ValueError:
        return ""


def _is_ours(name: str, host: str) -> bool:
    """Whether a name means this machine whoever resolves it: an address, localhost, or its own name."""
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        pass
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    # No other endings: whoever knows the name of a machine could register it under a domain of their own.
    return name in {"localhost", own, short, f"{short}.local", host.lower()} - {""}


@contextmanager
def guarded_servers(host: str) -> Iterator[None]:
    """While this is entered, a WebSocket server that is started refuses what `is_allowed` does not allow.

    viser starts one within its constructor and offers no place for such a check, so the function that starts
    servers is exchanged as long as the constructor runs.

    Raises:
        RuntimeError: If no server was started this way: another viser may not be protected.
    """
    import websockets.asyncio.server as library
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    start, started = library.serve, []

    def serve(handler: Any, *arguments: Any, process_request: Any = None, **options: Any) -> Any:
        def checked(connection: Any, request: Any) -> Any:
            if not is_allowed(request.headers, host):
                body = b"nas3r view answers its own page only, under an address of this machine\n"
                return Response(403, "Forbidden", Headers([("Content-Length", str(len(body)))]), body)
            return None if process_request is None else process_request(connection, request)

        started.append(True)
        return start(handler, *arguments, process_request=checked, **options)

    library.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        library.serve = start
    if not started:
        raise RuntimeError(
            "this version of viser starts its server in another way, which cannot be protected"
        )
