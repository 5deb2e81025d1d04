"""Starts one program, waits for it and tells what the kernel counted: launch.py FD PROGRAM ARGUMENT…

A process inherits the peak memory of the one it was started from, until it grows beyond it. So the bench starts
programs from this one, which is smaller than any of them. Imports nothing it can do without.
"""

import os
import sys
from time import monotonic

start = monotonic()
child = os.fork()
if child == 0:
    try:
        os.close(int(sys.argv[1]))
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        os.write(2, f"{sys.argv[2]}: {error.strerror}\n".encode())
        os._exit(127)
_, status, usage = os.wait4(child, 0)
said = (os.waitstatus_to_exitcode(status), monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
os.write(int(sys.argv[1]), " ".join(map(str, said)).encode())
