"""Wire dialects: how bytes become a `Call`, and how its answer becomes bytes. Pure; no I/O."""
