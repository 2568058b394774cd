"""`nas3r export`: a result for people who have no nas3r."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Command:
    """A web page of a result, to be put on any web server or opened from the disk.

    The page is interactive and needs nothing but a browser: the scene and what draws it are inside.
    """

    result: tyro.conf.Positional[Path]
    """Result of `nas3r reconstruct`."""

    page: Path
    """Folder for the page; its `index.html` holds everything."""

    scene_only: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out the cameras and their photos. The page then begins where the first photo was taken."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier page in the folder."""

    def run(self) -> int:
        """Runs the command."""
        from nas3r.viewer.page import write_page

        file = write_page(self.result, self.page, cameras=not self.scene_only, overwrite=self.overwrite)
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, opens in any browser", file=sys.stderr)
        return 0
