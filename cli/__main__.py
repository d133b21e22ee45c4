"""`python -m r2reg.cli`."""

from r2reg.cli.main import main

main()
