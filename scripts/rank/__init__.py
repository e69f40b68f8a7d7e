"""Turn rewards into preference pairs."""
