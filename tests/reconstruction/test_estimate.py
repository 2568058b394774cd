"""What `--dry-run` says of time and memory covers all that is run."""

import ast
import inspect

import pytest

from nas3r.models import load
from nas3r.reconstruction import ReconstructOptions, pipeline, placing, reconstruct
from nas3r.reconstruction.estimate import estimate
from nas3r.reconstruction.stages import IN_REST, REST, Work, memory_of_stages, seconds_of_stages

FULL = (1024, 768)


def stages_of_pipeline() -> set[str]:
    """Names of all stages that are timed anywhere in the pipeline."""
    trees = [ast.parse(inspect.getsource(module)) for module in (pipeline, placing)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    timed = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "stage"]
    assert len(timed) > 5
    return {ast.literal_eval(call.args[1]) for call in timed}


def covered(stage: str, names: set[str]) -> bool:
    return stage in names or (REST in names and (stage in IN_REST or stage.startswith("write ")))


def test_every_stage_of_the_pipeline_is_estimated(photos, weights):
    names = {"adapt"}  # whose time is given
    for quality in ("draft", "standard", "best"):
        for options in (ReconstructOptions(quality=quality), ReconstructOptions(quality=quality, refine=5)):
            for views in (4, 40):
                names |= seconds_of_stages(Work(views, 2, FULL, 8), options).keys()
    names |= estimate(photos, weights=weights).costs["standard"].stages.keys()
    assert [stage for stage in sorted(stages_of_pipeline()) if not covered(stage, names)] == []


@pytest.mark.parametrize(
    "options",
    [
        {"quality": "draft"},
        {"quality": "draft", "refine_steps": 2},
        pytest.param({"refine_steps": 2}, marks=pytest.mark.slow),
    ],
)
def test_what_was_run_was_estimated(options, photos, weights, tmp_path):
    chosen = ReconstructOptions(views=3, **options)
    expected = estimate(photos, chosen, weights=weights)
    result = reconstruct(photos, chosen, weights=weights)
    result.save(tmp_path / "out", exports=["points"])
    names = set(expected.costs[chosen.quality].stages)
    assert [stage for stage in result.record.seconds if not covered(stage, names)] == []
    assert expected.seconds == pytest.approx(sum(expected.costs[chosen.quality].stages.values()))


def test_better_takes_longer(photos, weights):
    costs = estimate(photos, weights=weights).costs
    assert costs["draft"].seconds < costs["standard"].seconds < costs["best"].seconds
    assert costs["draft"].bytes <= costs["standard"].bytes <= costs["best"].bytes


@pytest.mark.parametrize("quality", ["standard", "best"])
def test_more_and_larger_views_take_longer(quality):
    options = ReconstructOptions(quality=quality)

    def seconds(views, full):
        return sum(seconds_of_stages(Work(views, 0, full, 8), options).values())

    assert seconds(3, FULL) < seconds(8, FULL)
    assert seconds(9, FULL) < seconds(40, FULL) < seconds(300, FULL)
    assert seconds(8, (256, 192)) < seconds(8, FULL)
    assert memory_of_stages(Work(8, 0, (256, 192), 8)) < memory_of_stages(Work(8, 0, FULL, 8))


def test_time_that_is_given_is_what_fitting_takes():
    without, given = (
        seconds_of_stages(Work(8, 0, FULL, 8), ReconstructOptions(refine=seconds)) for seconds in (1, 31)
    )
    assert sum(given.values()) - sum(without.values()) == pytest.approx(30)
    draft = seconds_of_stages(Work(8, 0, (0, 0), 8), ReconstructOptions(quality="draft", refine=30))
    assert draft["refine"] == 30


def test_each_quality_is_estimated_whichever_was_asked_for(photos, weights):
    model = load(weights, "cpu")
    a, b = (
        estimate(photos, ReconstructOptions(views=4, quality=quality), weights=model)
        for quality in ("standard", "draft")
    )
    for quality, cost in a.costs.items():
        assert cost.stages == pytest.approx(b.costs[quality].stages)
    assert (a.quality, b.quality) == ("standard", "draft")
    assert f"draft: about {a.costs['draft'].seconds:.0f} s" in a.text
    assert "adjust cameras" in a.text
    assert "adjust cameras" not in b.text
