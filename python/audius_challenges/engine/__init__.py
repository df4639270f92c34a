"""What all challenges have in common: who counts, what has changed, whose turn it is, and the one write."""
