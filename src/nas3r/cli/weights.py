"""`nas3r weights`: what can be loaded by name, and what is known of it."""

import json
from dataclasses import asdict, dataclass

import tyro

DEFAULT = "default"


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
        from nas3r.models.hub import cached_official
        from nas3r.models.official.catalog import CARDS

        if self.name is not None and self.name not in (*CARDS, DEFAULT):
            raise ValueError(f"{self.name!r}: expected one of {', '.join((DEFAULT, *CARDS))}")
        if self.json:
            cards = [CARDS[self.name]] if self.name in CARDS else list(CARDS.values())
            print(json.dumps([{**asdict(c), "size": c.size, "licence": c.licence} for c in cards], indent=1))
        elif self.name == DEFAULT:
            print(_shipped())
        elif self.name is not None:
            print(CARDS[self.name].text())
        else:
            print(_shipped())
            for card in CARDS.values():
                here = cached_official(card)
                print(f"\n{card.text()}\n  here        {here if here else 'no; fetched at first use'}")
            print("\n" + _presets())


def _shipped() -> str:
    return (
        f"{DEFAULT}\n"
        "  file        in this package; what nas3r.load() and commands without --weights take\n"
        "  trained on  synthetic worlds, without labels; see docs/model-card.md\n"
        "  licence     Apache-2.0"
    )


def _presets() -> str:
    from nas3r.models import presets

    return f"Networks with random weights, by the name of their preset: {', '.join(presets.names())}."
