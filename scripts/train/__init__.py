"""Train policies and measure how far they moved."""
