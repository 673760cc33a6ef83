"""The fault suite: what goes astray, what only looks like it, and what breaks around the auditor.

Each fault is planted with real traffic on a real broker, and what the auditor claims is counted against what was
planted. `make faults` runs it at length; `make test` tells each story once.
"""
