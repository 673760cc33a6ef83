"""The pages for the people on call: a plugin of Datasette, which reads the ledger beside the daemon or without it.

`serving` starts it, the `gate` says who may, the `plugin` has the routes, `pages` what they show, `picture` lays out an
order's story, `words` has every word in each language.
"""
