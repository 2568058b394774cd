"""What a training run will see of its data, measured and shown on a page."""

from nas3r.data.inspection.measure import Inspection, inspect_source
from nas3r.data.inspection.page import write_page

__all__ = ["Inspection", "inspect_source", "write_page"]
