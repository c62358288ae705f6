"""The tree of errors, drawn once. Whoever uses the program can mend each of them: its message names
file or case and the remedy, the command line prints it as one line and ends with its status.

    MedactionError                   status 1: nothing came out, or only a part
    ├── WrongUse                     status 2: an option, a name or a path cannot be; nothing began
    │   └── NoGraph                  no graph of this name or path
    ├── BadCase                      a report that cannot be used, with a reason that is counted
    ├── BadTable                     a table that cannot be used, with its line
    ├── ChangedFile                  a data file that is not the one of the package
    ├── EncoderUnavailable           the encoder's files are not there
    ├── StoreError                   a store that cannot be used as wished
    ├── TrainError                   a training that cannot start
    │   └── MissingInput             no dataset or model at this path (status 2)
    ├── EngineLost                   Ray has ended in the middle of a run
    ├── ProcessDied                  a training's process ended
    └── ModelError                   a call that brought no reply
        ├── ModelUnavailable         the server is down, busy or slow: later may help
        ├── ModelRefused             the request itself was refused
        │   ├── TeacherStopped       the same refusal again and again: not called any more
        │   ├── ContextTooLong       prompt and reply do not fit the model's context
        │   └── ModelDeclined        a reply that says there is none: model or filter would not
        └── BudgetSpent              the teacher's budget is used up

Each class stands where it is raised. Errors that one part of the program raises for another, and
that no user sees, are no part of the tree. Anything else that comes out is a mistake of ours and
keeps its traceback.
"""

import shlex
from pathlib import Path


def typed(path: Path | str) -> str:
    """A path as it is typed in a command that a message names: quoted where it has spaces."""
    return shlex.quote(str(path))


class MedactionError(RuntimeError):
    """What a user can mend; the message says how. `status` is the command's exit status."""

    status = 1


class WrongUse(MedactionError):
    """An option, a name or a path that cannot be: nothing was begun."""

    status = 2


class EngineLost(MedactionError):
    """What plays the cases has ended by itself: no case is to blame, and none of them can go on.

    `can_go_on`: this process can play them. Not without Ray's GCS: its client waits for it, and
    after a minute ends the process.
    """

    def __init__(self, message: str, can_go_on: bool) -> None:
        super().__init__(message)
        self.can_go_on = can_go_on
