"""The container's first lines, in words that every Python 3 reads: a start that fails is kept readable for a while."""

import gc
import signal
import sys

KEPT = 15.0  # seconds in which the host reads the log of a failed start: with its container, it is gone
FAILED = "container-kernels: cannot start"


def main():  # type: () -> None
    gc.disable()  # until a process does its work: collecting while modules are imported only takes time
    try:
        if sys.version_info < (3, 9):
            raise RuntimeError("Python 3.9 or newer is needed, and the image has " + sys.version.split()[0])
        from .supervisor import main as supervise
    except BaseException:
        _keep_readable()
        raise
    supervise(_keep_readable)


def _keep_readable():  # type: () -> None
    import traceback  # PID 1 stays small

    traceback.print_exc()
    sys.stderr.write(FAILED + ": " + repr(sys.exc_info()[1]) + "\n")
    sys.stderr.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.sigtimedwait([signal.SIGTERM], KEPT)
