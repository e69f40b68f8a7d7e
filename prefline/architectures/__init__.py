"""Find the ways of computing an architecture that are exact, on a small copy of it."""
