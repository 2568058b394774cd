"""Structure from motion with COLMAP's mappers, for more than two views."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

_PEAK = 0.002  # COLMAP's default of 0.0067 leaves few features in small images
_THREADS = 2
_SEED = 0

Mapper = Literal["incremental", "global"]
MAPPERS: tuple[Mapper, ...] = get_args(Mapper)


def import_pycolmap() -> Any:
    """The package, quiet and with a fixed seed.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        import pycolmap
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('this baseline needs pycolmap: pip install "nas3r[baselines]"') from error
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(_SEED)
    return pycolmap


def map_incrementally(
    images: Float[Tensor, "v 3 h w"],
) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 3 3"]]:
    """Cameras by COLMAP's incremental mapper; see `map_photos`."""
    return map_photos(images, "incremental")


def map_photos(
    images: Float[Tensor, "v 3 h w"], mapper: Mapper
) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 3 3"]]:
    """Cameras by one of COLMAP's mappers from images alone: one unknown focal length, no distortion.

    Settings are the defaults, except that fewer points are asked for (images may be small) and that features
    of lower contrast are kept.

    Args:
        images: In [0, 1].
        mapper: Which one.

    Returns:
        Camera-to-world poses and normalised intrinsics, NaN for views that were not registered. Of several
        models, the one with the most views.

    Raises:
        ModuleNotFoundError: If pycolmap is not installed.
    """
    pycolmap = import_pycolmap()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        find_features(pycolmap, root, images)
        models = _run(pycolmap, root, mapper)
    height, width = images.shape[-2:]
    return _cameras(models, len(images), height, width)


def file_name(view: int) -> str:
    """What COLMAP calls a view."""
    return f"{view:04d}.png"


def find_features(pycolmap: Any, root: Path, views: Float[Tensor, "v 3 h w"]) -> None:
    """Writes views into an empty folder, finds features of them and matches all pairs."""
    database, images = root / "database.db", root / "images"
    images.mkdir()
    for i, image in enumerate(views):
        pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(images / file_name(i))
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = _THREADS
    extraction.sift.peak_threshold = _PEAK
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE"
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = _THREADS
    pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)


def _run(pycolmap: Any, root: Path, mapper: Mapper) -> list[Any]:
    database, images, output = root / "database.db", root / "images", root / "models"
    output.mkdir()
    if mapper == "global":
        options = pycolmap.GlobalPipelineOptions()
        options.num_threads, options.random_seed = _THREADS, _SEED
        return list(pycolmap.global_mapping(database, images, output, options).values())
    return map_database(pycolmap, root)


def map_database(pycolmap: Any, root: Path, names: Sequence[str] = (), least: int = 3) -> list[Any]:
    """Models by the incremental mapper, from the features of `find_features`.

    Args:
        pycolmap: The package.
        root: Folder of the features.
        names: Views to use; all if there are none.
        least: Views of a model.
    """
    database, images, output = root / "database.db", root / "images", root / "models"
    output.mkdir(exist_ok=True)
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads = _THREADS
    mapping.random_seed = _SEED
    mapping.min_model_size = least
    mapping.image_names = list(names)
    mapping.mapper.init_min_num_inliers = 30
    mapping.mapper.abs_pose_min_num_inliers = 10
    return list(pycolmap.incremental_mapping(database, images, output, mapping).values())


def _cameras(models: list[Any], count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    poses = torch.full((count, 4, 4), torch.nan, dtype=torch.float64)
    intrinsics = torch.full((count, 3, 3), torch.nan, dtype=torch.float64)
    if not models:
        return poses, intrinsics
    model = max(models, key=lambda m: m.num_reg_images())
    scale = np.array([width, height, 1.0])[:, None]
    for image in model.images.values():
        if not image.has_pose:
            continue
        view = int(Path(image.name).stem)
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        poses[view] = torch.tensor(pose)
        intrinsics[view] = torch.tensor(image.camera.calibration_matrix() / scale)
    return poses, intrinsics
