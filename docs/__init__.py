"""The documentation's pictures, drawn from the workflow itself: `make pictures`."""
