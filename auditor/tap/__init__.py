"""The tap: everything that speaks to the broker. aio-pika and aiormq are imported here and nowhere else in the
daemon."""
