"""Faults by chance, under load; `python -m tests.chaos --help` runs more of them than the tests do."""
