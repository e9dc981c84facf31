"""The one error that a user can mend, and the exit codes of a script."""
from __future__ import annotations

import errno
import os
import signal
import sys

LONGEST = 300  # characters of a message: what and where stand at its beginning, the mend at its end


class InputError(ValueError):
    """A user's mistake. The message is one line: what, where, how to mend. Scripts exit with code 2."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """The message without line breaks and control characters, its middle left out if it is too long."""
    if len(message) > LONGEST:
        message = f"{message[:LONGEST * 2 // 3]} ... {message[-LONGEST // 3 + 5:]}"
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else repr(sign)[1:-1]
                   for sign in message)


def main_guard(main) -> None:
    """Runs a script's main(). A user's mistake ends as one line on stderr and exit code 2, Ctrl-C as 130.

    So does a machine that has no room, no memory or no permission; any other exception is a fault of ours,
    and keeps its traceback.
    """
    open_streams()
    try:
        main()
        sys.stdout.flush()  # while a full disk can still be told
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; what libraries do at the exit is short
    except InputError as error:
        leave(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head`
        silence_stdout()
        sys.exit(141)
    except OSError as error:
        silence_stdout()  # if it is the full one, the interpreter must not flush it again
        leave(said_of(error))
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or out_of_memory(error)):
            raise
        leave("out of memory: give smaller sizes (--batch_size, --width, --members, --jobs)")


def open_streams() -> None:
    """Lets any text be printed: signs that the terminal's encoding lacks as `?`, and none if it is closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the end)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def leave(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def said_of(error: OSError) -> str:
    """One line about a fault of the machine: what, which file, how to mend."""
    name = one_line(str(error.filename or "standard output"))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = ("; all that was written before is kept: make room, and go on with --resume where the script has "
            "it" if full else "")
    return f"{error.strerror or type(error).__name__}: {name}{mend}"


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found no memory, on the CPU or the GPU, for which it has no one type."""
    return "OutOfMemory" in type(error).__name__ or "can't allocate memory" in str(error) or (
        "out of memory" in str(error))
