"""``python -m classy_gc.commands.train``, which ``torchrun`` starts."""

import sys

from classy_gc.commands import main

sys.exit(main(["train", *sys.argv[1:]]))
