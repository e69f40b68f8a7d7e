"""Find what would stop an expensive job before the first one starts."""
