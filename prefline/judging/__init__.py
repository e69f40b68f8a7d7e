"""Judge MT-Bench: judges, what they are asked, how their words are read, and statistics of verdicts."""
