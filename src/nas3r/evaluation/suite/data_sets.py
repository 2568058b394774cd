"""The data sets of the published evaluations: what their folders are called, and where people get them."""

from dataclasses import dataclass
from pathlib import Path

_PUBLISHED_CODE = "the folder assets/ of github.com/ranrhuang/SPFSplatV2 or github.com/cvg/NoPoSplat"
_CHUNKS = "as .torch chunks: github.com/dcharatan/pixelsplat, 'Acquiring Datasets'"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: Of its folder, in small letters; the name of its index ends in it.
        title: As papers call it.
        aliases: Other names of the folder.
        indexed: Whether its view sets come from an evaluation index; else from its own `pair.txt`.
        origin: Where people get it.
        terms: Under which terms.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    indexed: bool
    origin: str
    terms: str

    @property
    def index_name(self) -> str:
        """File name of its evaluation index."""
        return f"evaluation_index_{self.name}.json"

    @property
    def index_origin(self) -> str:
        """Where people get the index."""
        return _PUBLISHED_CODE

    def folder(self, root: Path) -> Path | None:
        """Its folder below a root, or the folder `test` in it; None if it is not there."""
        names = (self.name, *self.aliases)
        found = [child for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in names]
        if not found:
            return None
        test = found[0] / "test"
        return test if test.is_dir() else found[0]

    def index(self, root: Path) -> Path | None:
        """Its evaluation index: in the root, in `assets` or `indices` there, or beside the data."""
        data = self.folder(root)
        places = [root, root / "assets", root / "indices", *([data, data.parent] if data else [])]
        return next((path for place in places if (path := place / self.index_name).is_file()), None)


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "re10k",
            "RealEstate10K",
            ("realestate10k",),
            True,
            f"google.github.io/realestate10k; {_CHUNKS}",
            "cameras: those of that page; the frames belong to the makers of the videos",
        ),
        DataSet(
            "acid",
            "ACID",
            (),
            True,
            f"infinite-nature.github.io; {_CHUNKS}",
            "cameras: those of that page; the frames belong to the makers of the videos",
        ),
        DataSet(
            "dl3dv",
            "DL3DV",
            ("dl3dv-10k", "dl3dv-benchmark", "dl3dv_test"),
            True,
            "huggingface.co/DL3DV, DL3DV-Benchmark; converted to .torch chunks by the scripts of "
            "github.com/ranrhuang/SPFSplatV2",
            "DL3DV-10K terms of use and CC BY-NC 4.0",
        ),
        DataSet(
            "dtu",
            "DTU",
            ("mvs_training", "dtu_training"),
            True,
            "dtu_training.rar of github.com/YoYo000/MVSNet, as it comes; or converted to chunks",
            "those of the page of the DTU MVS data set",
        ),
        DataSet(
            "blendedmvs",
            "BlendedMVS",
            ("blended_mvs", "blendedmvs_low_res"),
            False,
            "github.com/YoYo000/BlendedMVS, low-res set",
            "CC BY 4.0",
        ),
    )
}
