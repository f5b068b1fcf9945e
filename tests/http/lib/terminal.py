"""Runs a command on a terminal of its own: `terminal.py COMMAND…`. Each line of standard input is typed, where `^C` is Ctrl-C. What the
terminal shows goes to standard output. Ends as the command does: with its exit code, or with 128 and the signal that ended it."""

import os
import pty
import select
import sys

child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])

typing = True
while True:
    ready, _, _ = select.select([terminal] + ([0] if typing else []), [], [])
    if 0 in ready:
        typed = os.read(0, 4096)
        typing = bool(typed)
        os.write(terminal, typed.replace(b"^C\n", b"\x03"))
    if terminal in ready:
        try:
            shown = os.read(terminal, 65536)
        except OSError:
            # Nobody has this terminal open any more.
            shown = b""
        if not shown:
            break
        os.write(1, shown)

_, status = os.waitpid(child, 0)
sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
