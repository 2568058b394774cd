from two_layer_world import other_world, photos, short_fits, weights, world

__all__ = ["other_world", "photos", "short_fits", "weights", "world"]
