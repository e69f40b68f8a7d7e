"""Commands for people, run from the repository's root as `python -m tools.NAME`."""
