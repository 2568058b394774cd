"""What a training run will see of its data, measured and shown on a page."""

from nas3r.data.inspection.measure import Inspection, inspect_source, memory_of_inspection
from nas3r.data.inspection.page import check_page, write_page

__all__ = ["Inspection", "check_page", "inspect_source", "memory_of_inspection", "write_page"]
