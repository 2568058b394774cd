"""The weights that the method's authors published, by name, and what is known of each.

Files and settings are those of the table in the README of github.com/ranrhuang/NAS3R. The files lie in a
repository of the Hugging Face hub and are fetched when they are first asked for.
"""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "RanranHuang/NAS3R"
REVISION = "main"  # the authors tag no releases

_GIGABYTES = {"nas3r": 4.9, "nas3r-I": 4.9, "nas3r-m": 2.5, "nas3r-m-I": 2.5}
_STARTS = {
    None: "random weights",
    "VGGT": "VGGT-1B, which was trained with labels",
    "MASt3R": "MASt3R, which was trained with labels",
}


@dataclass(frozen=True)
class Card:
    """One file of weights.

    Attributes:
        name: What `nas3r.load` calls it.
        file: Its name in the repository.
        preset: The network it is of.
        prior: What its training started from; None for random weights.
        views: Context views that it was trained with.
    """

    name: str
    file: str
    preset: str
    prior: str | None
    views: str = "2"

    @property
    def size(self) -> int:
        """Side of the training images in pixels."""
        return 256 if "-m" in self.preset else 224

    def text(self) -> str:
        """All that is known, a fact a line."""
        intrinsics = "true intrinsics, given" if self.preset.endswith("-I") else "none"
        return "\n".join(
            [
                self.name,
                f"  file        {self.file}, {_GIGABYTES[self.preset]} GB, hub repository {REPOSITORY}, "
                f"revision {REVISION}",
                f"  network     preset {self.preset}, {self.size} x {self.size} pixels",
                f"  trained on  RealEstate10K, {self.views} context views; labels: {intrinsics}",
                f"  start       {_STARTS[self.prior]}",
                f"  licence     {self.licence}",
            ]
        )

    @property
    def licence(self) -> str:
        """Under which terms the file comes, as far as it is known here."""
        terms = f"that of the repository (https://huggingface.co/{REPOSITORY}); read it there"
        return terms if self.prior is None else f"{terms}; {self.prior}'s own terms bind what starts from it"


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card("nas3r-re10k", "re10k_nas3r.ckpt", "nas3r", None),
        Card("nas3r-re10k-multiview", "re10k_nas3r_multiview.ckpt", "nas3r", None, "2 to 10"),
        Card("nas3r-re10k-pretrained", "re10k_nas3r_pretrained.ckpt", "nas3r", "VGGT"),
        Card(
            "nas3r-re10k-pretrained-multiview",
            "re10k_nas3r_pretrained_multiview.ckpt",
            "nas3r",
            "VGGT",
            "2 to 10",
        ),
        Card("nas3r-re10k-pretrained-I", "re10k_nas3r_pretrained-I.ckpt", "nas3r-I", "VGGT"),
        Card("nas3r-m-re10k", "re10k_nas3r-m.ckpt", "nas3r-m", None),
        Card("nas3r-m-re10k-pretrained", "re10k_nas3r-m_pretrained.ckpt", "nas3r-m", "MASt3R"),
        Card("nas3r-m-re10k-pretrained-I", "re10k_nas3r-m_pretrained-I.ckpt", "nas3r-m-I", "MASt3R"),
    )
}


def card_of(weights: str | None) -> Card | None:
    """The card of weights given by name, or by a path that ends in the name of a published file."""
    if weights is None:
        return None
    by_file = {card.file: card for card in CARDS.values()}
    return CARDS.get(weights) or by_file.get(Path(weights).name)
