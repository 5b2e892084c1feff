"""`python -m leadline.client.cli`: the command line without its script on the path."""

import sys

from leadline.client.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
