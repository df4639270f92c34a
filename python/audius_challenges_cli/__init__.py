"""The command audius-challenges: ask the extension audius_challenges in a database, and watch it.

It asks through the extension's interface in SQL and decides nothing of its own: what it says, the database says.
`app` has the commands, `database` the questions, `lenient` how their answers are read, `show` what the answers look
like in a terminal, `run` the run with its progress, `watch` the screen, `report` the file, `errors` what ends a
command.
"""

__version__ = "2.0.0"
