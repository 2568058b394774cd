"""Labels for a corpus: cameras, depth and confidence of every clip, by any model.

labelling.py   one clip: which frames are reconstructed from, what the model says of all of them
corpus.py      many shards: which are still to do, tars with the labels beside the frames
"""

from nas3r.annotation.corpus import AnnotationReport, annotate_shards
from nas3r.annotation.labelling import LabelOptions, Labels, label_clip

__all__ = ["AnnotationReport", "LabelOptions", "Labels", "annotate_shards", "label_clip"]
