"""Draw pictures and gather what the report shows."""
