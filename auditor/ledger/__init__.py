"""The ledger: the one SQLite file that keeps what was seen and what is claimed. `docs/ledger.md` is its contract.

`writer` owns the one writing connection; `queries` reads beside it; `retention` prunes. No SQL stands outside this
folder. Nothing is imported here, so that the read-only commands start without the writer's libraries.
"""
