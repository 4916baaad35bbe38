"""What the kernelspecs' `argv` runs, for clients that know nothing of kernel provisioners.

It refuses: such a client would run the kernel on the host itself, and not in a container.
"""

from __future__ import annotations

import sys

REFUSAL = """\
This kernelspec needs a client that uses kernel provisioners (jupyter_client 7 or newer: JupyterLab, Notebook, nbclient, papermill).
The program that started it runs a kernelspec's `argv` on the host itself, where the kernel would not be isolated: so it was not started.
"""


def main() -> int:
    sys.stderr.write(REFUSAL)
    return 1


if __name__ == "__main__":
    sys.exit(main())
