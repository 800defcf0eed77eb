"""Fuzzing: `python -m tests.fuzz` (or `nox -s fuzz`) runs it, `test_found.py` what it has found."""
