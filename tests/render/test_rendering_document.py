"""The snippets of docs/rendering.md run, in their order."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "rendering.md"


def test_snippets_run():
    snippets = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(snippets) == 5
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, str(DOCUMENT), "exec"), names)
    assert names["surface"].numel() > 0
