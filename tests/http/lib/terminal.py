"""Runs a command on its own terminal: `terminal.py COMMAND…`.

Types each line of standard input; `^C` is Ctrl-C. Copies what the terminal shows to standard
output. Exits with the exit code of the command, or with 128 plus the signal that ended it."""

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
            # The terminal has no open end any more.
            shown = b""
        if not shown:
            break
        os.write(1, shown)

_, status = os.waitpid(child, 0)
sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
