"""Cycles of a kernel by its machine code: see `tools/sass-cycles.py`."""
