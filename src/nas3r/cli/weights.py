"""`nas3r weights`: what can be loaded by name, and what is known of it."""

import json
from dataclasses import asdict, dataclass

import tyro


@dataclass
class Command:
    """Lists the weights that can be loaded by name, or prints the card of one of them.

    Published weights are fetched from the Hugging Face hub at their first use; nothing is fetched here.
    """

    name: tyro.conf.Positional[str | None] = None
    """Print this one's card alone."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print as JSON."""

    def run(self) -> None:
        """Prints the list or the card."""
        from nas3r.models.checkpoints import DEFAULT
        from nas3r.models.hub import cached_official
        from nas3r.models.official.catalog import CARDS

        if self.name is not None and self.name not in (*CARDS, DEFAULT):
            raise ValueError(f"{self.name!r}: expected one of {', '.join((DEFAULT, *CARDS))}")
        if self.json:
            cards = [{**asdict(c), "size": c.size, "licence": c.licence} for c in CARDS.values()]
            known = [{"name": DEFAULT, "licence": "Apache-2.0"}, *cards]
            print(json.dumps([card for card in known if self.name in (None, card["name"])], indent=1))
        elif self.name == DEFAULT:
            print(_shipped(DEFAULT))
        elif self.name is not None:
            print(CARDS[self.name].text())
        else:
            print(_shipped(DEFAULT))
            for card in CARDS.values():
                here = cached_official(card)
                print(f"\n{card.text()}\n  here        {here if here else 'no; fetched at first use'}")
            print("\n" + _presets())


def _shipped(name: str) -> str:
    return (
        f"{name}\n"
        "  file        in this package; what nas3r.load() and commands without --weights take\n"
        "  trained on  synthetic worlds, without labels; see docs/model-card.md\n"
        "  licence     Apache-2.0"
    )


def _presets() -> str:
    from nas3r.models import presets

    return f"Networks with random weights, by the name of their preset: {', '.join(presets.names())}."
