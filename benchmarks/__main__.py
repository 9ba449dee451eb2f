"""`python -m benchmarks`: framing, then serving. The `estimate` and `classify` benchmarks take a data folder."""

import runpy
import sys

for module in ("benchmarks.sse", "benchmarks.serving"):
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")
    print()
