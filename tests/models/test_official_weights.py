"""Published weights by name."""

import json
from pathlib import Path

import pytest

import nas3r
from nas3r.cli.main import main
from nas3r.models import hub
from nas3r.models.official.catalog import CARDS, REPOSITORY, card_of


def test_a_name_resolves_to_a_file_of_the_hub(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def fetch(repository: str, file: str, revision: str) -> str:
        asked.append((repository, file, revision))
        nas3r.save(nas3r.load("tiny", device="cpu"), tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    model = nas3r.load("nas3r-re10k-pretrained-I", device="cpu")
    assert model.config.image_size == 64
    assert asked == [(REPOSITORY, "re10k_nas3r_pretrained-I.ckpt", "main")]


def test_offline_is_one_sentence(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fail(*unused: object, **options: object) -> str:
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ConnectionError) as raised:
        nas3r.load("nas3r-re10k")
    text = str(raised.value)
    assert "re10k_nas3r.ckpt is not in the hub's cache" in text
    assert "give its path" in text
    assert "\n" not in text


def test_the_list_and_the_cards(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hub, "cached_official", lambda card: tmp_path if card.name == "nas3r-re10k" else None)
    assert main(["weights"]) == 0
    printed = capsys.readouterr().out
    for card in CARDS.values():
        assert card.file in printed
    assert printed.count("no; fetched at first use") == len(CARDS) - 1
    assert main(["weights", "nas3r-m-re10k-pretrained"]) == 0
    card = capsys.readouterr().out
    assert "256 x 256" in card
    assert "MASt3R's own terms" in card
    assert main(["weights", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ["default", *CARDS]
    assert main(["weights", "nothing"]) == 2


def test_a_local_file_is_known_by_its_name():
    assert card_of(str(Path("checkpoints") / "re10k_nas3r_multiview.ckpt")) == CARDS["nas3r-re10k-multiview"]
    assert card_of("mine.ckpt") is None
    assert card_of(None) is None


def test_unknown_names_list_what_there_is():
    with pytest.raises(FileNotFoundError, match="nas3r-re10k"):
        nas3r.load("nas3r-re20k")
