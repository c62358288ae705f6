"""`python -m medaction` and the command `medaction`."""

import sys


def main() -> None:
    """The command line. Whoever interrupts it while it is still being imported reads one line
    too."""
    try:
        from medaction.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("medaction: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
