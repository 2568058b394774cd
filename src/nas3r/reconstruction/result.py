"""`Reconstruction`: what `nas3r.reconstruct` returns, a scene with the network that made it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from nas3r.geometry import Cameras
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.locator import Locator
from nas3r.reconstruction.output import output_folder
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.storage import DEFAULT_EXPORTS, check_exports, read_scene, write_scene


@dataclass(frozen=True)
class Reconstruction(Scene):
    """Cameras, depth and Gaussians of one scene, and the network that made them.

    Attributes:
        locator: Finds other photos in the scene.
    """

    locator: Locator = field(default_factory=Locator, repr=False, compare=False)

    @staticmethod
    def of(scene: Scene, locator: Locator) -> "Reconstruction":
        """A scene with what finds other photos in it."""
        return Reconstruction(**{f.name: getattr(scene, f.name) for f in fields(Scene)}, locator=locator)

    def locate(self, image: InputLike) -> Cameras:
        """The camera of another photo of the scene.

        Where the focal length was told and not predicted, that of the first view is taken.

        Args:
            image: A file, array, tensor or PIL image, see `nas3r.reconstruct`.

        Returns:
            Batch of one, one view; intrinsics normalised to the whole photo, so that
            `pixel_intrinsics(width, height)` and `render(cameras, height, width)` speak of that photo.

        Raises:
            ValueError: If there is not exactly one readable image.
            FileNotFoundError: If the weights are not where they were.
        """
        return self.locator.locate(self, image)

    def save(
        self,
        folder: str | Path,
        *,
        exports: Sequence[str] | None = None,
        overwrite: bool = False,
        on_progress: Progress = silent,
    ) -> None:
        """Writes the result folder; it appears complete or not at all.

        Args:
            folder: New or empty folder.
            exports: Names from `nas3r.reconstruction.EXPORTS`; by default `DEFAULT_EXPORTS`.
            overwrite: Replace an earlier result in that folder.
            on_progress: Called with (what, done, total).

        Raises:
            FileExistsError: If the folder holds something and `overwrite` is not set, or holds something
                that is no earlier result.
            ValueError: For an unknown export.
        """
        names = check_exports(DEFAULT_EXPORTS if exports is None else exports)
        with output_folder(folder, overwrite=overwrite) as staging:
            self.write(staging, names, on_progress=on_progress)

    def write(self, folder: Path, exports: Sequence[str], *, on_progress: Progress = silent) -> Scene:
        """Writes into an existing, empty folder; returns the scene as it is written, with its times."""
        adapted = None if self.record.adapted is None else self.locator.model
        return write_scene(self, folder, exports, adapted=adapted, on_progress=on_progress)

    @staticmethod
    def load(folder: str | Path) -> "Reconstruction":
        """Reads a result folder.

        Raises:
            ValueError: If the folder does not hold a result, or a damaged one.
            FileNotFoundError: If it does not exist.
        """
        scene = read_scene(Path(folder))
        return Reconstruction.of(scene, Locator(scene.record.weights))
