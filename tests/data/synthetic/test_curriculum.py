"""Easier clips first."""

from dataclasses import replace

import pytest
import torch

from nas3r.data.synthetic.config import SyntheticConfig
from nas3r.data.synthetic.curriculum import EasyStart, config_of_chunk
from nas3r.data.synthetic.sources import SyntheticClips

CONFIG = SyntheticConfig(frames=6, rotation=(30.0, 40.0))
CALM = replace(CONFIG, rotation=(0.0, 1.0), shake=0.0)


def test_the_share_of_easy_clips_falls_from_all_to_none():
    start = EasyStart(CALM, hold=640, fade=12_800)
    easy = [config_of_chunk(CONFIG, start, chunk, 64) is CALM for chunk in range(400)]
    assert all(easy[:10])
    assert not any(easy[210:])
    quarters = [sum(easy[10 + 50 * i : 60 + 50 * i]) / 50 for i in range(4)]
    assert quarters == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8], abs=0.05)  # 50 draws, evenly spread


def test_no_fade_is_a_step():
    start = EasyStart(CALM, hold=128, fade=0)
    assert [config_of_chunk(CONFIG, start, chunk, 64) is CALM for chunk in range(4)] == [
        True,
        True,
        False,
        False,
    ]


def test_clips_of_the_start_are_those_of_its_configuration():
    start = EasyStart(CALM, hold=64, fade=0)
    clips = SyntheticClips(0, CONFIG, 16, 16, start=start)
    calm, plain = SyntheticClips(0, CALM, 16, 16), SyntheticClips(0, CONFIG, 16, 16)
    frames = [0, 5]
    assert torch.equal(clips[3].read(frames), calm[3].read(frames))
    assert torch.equal(clips[64].read(frames), plain[64].read(frames))
    assert not torch.equal(plain[3].read(frames), calm[3].read(frames))


def test_bad_starts_are_named():
    with pytest.raises(ValueError, match="expected clips of 6 frames like the rest, got 7"):
        config_of_chunk(CONFIG, EasyStart(replace(CALM, frames=7), 1, 1), 0, 64)
    with pytest.raises(ValueError, match="got -1 and 0"):
        EasyStart(CALM, -1, 0)
