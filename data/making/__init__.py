"""The modules behind `python -m data.make_world`; one noun per file."""
