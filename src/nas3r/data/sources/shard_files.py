"""Where the files of shards are: on a disk, or on a web server with the needed ones on a disk."""

import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nas3r.io.atomic import atomic_path

_TIMEOUT = 60.0  # seconds without an answer
_TRIES = 3


class LocalShards:
    """Shards that lie in a folder, or a single one.

    Args:
        location: Folder or `.tar` file.
    """

    def __init__(self, location: Path) -> None:
        self._folder = location if location.is_dir() else location.parent
        self._alone = not location.is_dir()
        self._names = sorted(p.name for p in location.glob("*.tar")) if location.is_dir() else [location.name]

    def __len__(self) -> int:
        return len(self._names)

    def index_text(self) -> str | None:
        """The content of the index, or None if there is none."""
        index = self._folder / "index.json"
        return index.read_text() if index.is_file() and not self._alone else None

    def use(self, names: Sequence[str]) -> None:
        """Numbers the shards as the index lists them."""
        self._names = list(names)

    def expect(self, numbers: Sequence[int]) -> None:
        """Does nothing: all shards are here."""

    def path(self, number: int) -> Path:
        """Path of a shard."""
        return self._folder / self._names[number]


class RemoteShards:
    """Shards on a web server; the last used ones lie in a folder.

    Args:
        address: http(s) address of the folder on the server.
        folder: Where shards are put; created if missing. Shards of this address that are there from an
            earlier run are used. Nothing but shards is ever removed.
        keep: Number of shards kept.
    """

    def __init__(self, address: str, folder: Path, keep: int) -> None:
        self._address = address.rstrip("/") + "/"
        self._folder, self._keep = folder, keep
        self._names: list[str] = []
        self._here: OrderedDict[int, None] = OrderedDict()
        self._expected: list[int] = []
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nas3r-shards")

    def __len__(self) -> int:
        return len(self._names)

    def index_text(self) -> str:
        """The content of the index.

        Raises:
            OSError: It cannot be fetched.
        """
        address = self._address + "index.json"
        try:
            with _request(address) as answer:
                return answer.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{address}: the connection broke off") from error

    def use(self, names: Sequence[str]) -> None:
        """Numbers the shards as the index lists them."""
        self._names = list(names)
        self._here = OrderedDict((n, None) for n, name in enumerate(names) if (self._folder / name).is_file())

    def expect(self, numbers: Sequence[int]) -> None:
        """Says which shards are used now and next; they are fetched in the background, in this order."""
        with self._lock:
            if list(numbers) == self._expected:
                return
            self._expected = list(numbers)
        for number in numbers:
            self._pool.submit(self._try_path, number)

    def path(self, number: int) -> Path:
        """Path of a shard, which is fetched if it is not here.

        Raises:
            OSError: It cannot be fetched, or the disk is full.
        """
        with self._lock:
            lock = self._locks.setdefault(number, threading.Lock())
        path = self._folder / self._names[number]
        with lock:
            if not path.is_file():
                _fetch(self._address + urllib.parse.quote(self._names[number]), path)
        self._keep_last(number)
        return path

    def _try_path(self, number: int) -> None:
        try:
            if number in self._expected:
                self.path(number)
        except OSError:
            pass  # whoever needs the shard will try again and report it

    def _keep_last(self, number: int) -> None:
        with self._lock:
            self._here[number] = None
            self._here.move_to_end(number)
            for old in [n for n in self._here if n not in self._expected]:
                if len(self._here) <= self._keep:
                    break
                del self._here[old]
                (self._folder / self._names[old]).unlink(missing_ok=True)


def default_cache(address: str) -> Path:
    """Folder for the shards of an address, in the user's cache folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "nas3r" / "shards" / hashlib.blake2b(address.encode(), digest_size=8).hexdigest()


def _fetch(address: str, path: Path) -> None:
    for attempt in range(_TRIES):
        try:
            with _request(address) as answer, atomic_path(path) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
                expected = answer.headers.get("Content-Length")
                if expected is not None and file.tell() != int(expected):
                    raise ConnectionError("the connection broke off")
            return
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            if attempt == _TRIES - 1:
                raise ConnectionError(f"{address}: cannot be fetched ({error})") from error
            time.sleep(2.0**attempt)


def _request(address: str):
    try:
        return urllib.request.urlopen(address, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        raise FileNotFoundError(f"{address}: the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{address}: {error.reason}") from error
