"""The demo, and the broker that it and the tests start for themselves."""
