"""``python -m audius_challenges_cli``."""

from audius_challenges_cli.app import main

main()
