"""Sample completions."""
