"""Many pictures: who sees what, and the cameras of all that can be tied together. In this order:

1. `retrieval`: pictures that may show the same. `view_graph`: those that do, and from different places.
2. `seeds`: the few views to begin with, of which a model says cameras and depth.
3. `growing`: from those to all views that can be tied to them. `merging`: parts that grew apart.

`mapping` is the stage. Nothing here knows of networks.
"""

from nas3r.scenes.mapping import (
    ComparedPictures,
    MapConfig,
    MappedScene,
    Part,
    compare_pictures,
    map_known,
    map_scene,
)

__all__ = [
    "ComparedPictures",
    "MapConfig",
    "MappedScene",
    "Part",
    "compare_pictures",
    "map_known",
    "map_scene",
]
