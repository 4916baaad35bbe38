"""What `tests/apple/container` starts."""

import os
import sys

# Not the directory of this file: `signal` and the like are to be Python's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.apple.stand_in.main import main  # noqa: E402 - that is found only now

sys.exit(main(sys.argv[1:]))
