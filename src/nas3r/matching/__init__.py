"""What views are compared by, and where one view shows the cells of another. In the order it happens:

1. `features`: what cells and pixels are compared by; fixed patches, and what is learnt beside them.
2. `across`: squares of cells of two views look at each other, if the model does that.
3. `dense`: every cell of a query view is looked for among all cells of its reference view.
4. `support`: matches count as far as their neighbours went the same way.
5. `sharpening`: matches are found again in finer and finer images.

`view_matcher` does all of it for the views of a scene; `matches` is what comes out. Features learn from
`known_warps`, looking across from `relief`. Nothing that matches knows of cameras.
"""

from nas3r.matching.across import AcrossConfig
from nas3r.matching.matches import Matches, PairedMatches, matches_with, mean_agreement, side_by_side
from nas3r.matching.view_matcher import Features, FeaturesConfig, ViewMatcher

__all__ = [
    "AcrossConfig",
    "Features",
    "FeaturesConfig",
    "Matches",
    "PairedMatches",
    "ViewMatcher",
    "matches_with",
    "mean_agreement",
    "side_by_side",
]
