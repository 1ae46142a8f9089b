"""``python -m classy_gc.commands.train``, which ``torchrun`` starts."""

import sys

from classy_gc.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
