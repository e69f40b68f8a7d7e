"""Run other evaluations by the libraries that own them."""
