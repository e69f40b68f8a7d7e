"""Know what made each file."""
