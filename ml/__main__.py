"""``python -m ml``."""

import sys

try:
    from ml.cli import main

    main()
except KeyboardInterrupt:
    # Also while modules are being loaded, which takes a second.
    sys.exit(130)
