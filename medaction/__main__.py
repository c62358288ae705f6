"""`python -m medaction`: the command line."""

from medaction.cli.main import main

main()
