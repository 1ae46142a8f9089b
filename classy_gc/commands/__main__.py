"""``python -m classy_gc.commands COMMAND``, the same as ``classy-gc COMMAND``."""

import sys

from classy_gc.commands import main

sys.exit(main())
