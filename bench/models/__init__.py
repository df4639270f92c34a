"""Models of what a user would otherwise have, written for the benchmark; no code of any real service.

They know the challenges that follow from a user's own rows (`USER_DERIVED`), neither streaks nor trending, which is in
their favour. None of them is exact, and none cares about the cases that the extension is tested for.
"""
