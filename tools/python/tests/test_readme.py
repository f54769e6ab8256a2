"""README's code works as written."""

from __future__ import annotations

import re

from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_there_is_code():
    assert len(BLOCKS) >= 2


def test_code_works_as_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile("\n".join(BLOCKS), "README.md", "exec"), {})  # noqa: S102 (it is our own)
