"""The engine alternates between asking the policy and doing one piece of I/O. `run` is the one path of every call."""
