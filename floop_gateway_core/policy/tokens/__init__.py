"""The token estimator: how many tokens a text has in each vendor's vocabulary, without the vendor's tokenizer.

`estimate` is the public entry; `tables` loads the fitted costs.
"""
