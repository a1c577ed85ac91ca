"""``python -m unival.launch``."""

import sys

from unival.launch.node import main

if __name__ == "__main__":
    sys.exit(main())
