"""Fetch, train and merge the models that are no policy of a run."""
