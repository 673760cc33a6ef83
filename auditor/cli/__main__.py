"""`python -m auditor.cli`: the command where no script is installed."""

from auditor.cli.main import main

main()
