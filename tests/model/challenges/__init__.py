"""One file for each challenge, or family of challenges: a subclass of `Rule` with their ids."""
