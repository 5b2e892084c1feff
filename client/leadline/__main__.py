"""The command `leadline`, and `python -m leadline`."""

import os
import sys

# Before grpc is imported, which reads it then: commands report every error of gRPC themselves, but
# a server's log keeps gRPC's lines.
if sys.argv[1:2] != ["serve"]:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from leadline.client.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
