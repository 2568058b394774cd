from two_layer_world import other_world, photos, weights, world

__all__ = ["other_world", "photos", "weights", "world"]
