"""The windows: how what the auditor knows is seen from outside. Each has one outside library; none knows another door.

`spans` makes spans, `otlp` sends them, `exporter` sees to it that each is sent. `alerts` tells Alertmanagers, `metrics`
and `health` say how things stand, and `http` serves both.
"""
