"""Prepare prompts and preference datasets."""
