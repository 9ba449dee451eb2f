"""`python -m floop_gateway_core` is the command `floop-gateway`."""

import sys

from floop_gateway_core.cli import main

sys.exit(main())
