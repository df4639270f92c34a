"""The benchmark: what the extension costs at a given size, beside what a user would otherwise have."""
