"""The `auto` classifier: which of `fast`, `smart` and `reason` a request needs.

`classify` is the public entry. It scores what `parts` (the request cut into instruction and material), `cues` (words that
name a task) and `features` (numbers about both) find, with the weights in `tables`.
"""
