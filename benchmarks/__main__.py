"""`python -m benchmarks`: framing, then serving. The judgement's benchmarks take a folder of data, see their own pages."""

import runpy
import sys

for module in ("benchmarks.sse", "benchmarks.serving"):
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")
    print()
