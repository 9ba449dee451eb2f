"""The gateway's own dialect: `/chat`, `/generate` and `/embed`."""
