"""Answer MT-Bench, judge the answers, compute win rates."""
