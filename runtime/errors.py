"""The one error that a user can mend, and the exit codes of a script."""
from __future__ import annotations

import os
import sys


class InputError(ValueError):
    """A user's mistake. The message is one line: what, where, how to mend. Scripts exit with code 2."""


def main_guard(main) -> None:
    """Runs a script's main(). A user's mistake ends as one line on stderr and exit code 2, Ctrl-C as 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(2)
