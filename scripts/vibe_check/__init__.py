"""Show every policy's answers side by side."""
