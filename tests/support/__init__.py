"""What the tests are made with: programs that get the machine ready, and helpers that tests import."""
