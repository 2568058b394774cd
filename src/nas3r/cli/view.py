"""`nas3r view`: a result in the browser."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nas3r.bounds import Within


@dataclass
class Command:
    """Interactive viewer of a result, in the browser.

    Splats, cameras with their photos (click one to see the scene from there), colour by photo or depth,
    filters by opacity and size, and export of what is left as PLY.
    """

    folder: tyro.conf.Positional[Path]
    """Result of `nas3r reconstruct`."""

    port: Annotated[int, Within(1, 65535)] = 8080
    """First port to try."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, without a password."""

    def run(self) -> int:
        """Serves until Ctrl-C."""
        from nas3r.viewer import Viewer

        viewer = Viewer(self.folder, host=self.host, port=self.port)
        print(f"{self.folder}: {viewer.url} (Ctrl-C ends)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            viewer.serve()
        return 0
