"""The library that the steps share: it imports nothing from scripts/."""
