"""The engine alternates between asking the policy and doing I/O. Every call goes through `run`."""
