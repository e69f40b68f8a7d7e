"""Push policies to the hub."""
