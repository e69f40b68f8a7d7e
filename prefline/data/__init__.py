"""Read what users bring, and declare the artifacts' columns."""
