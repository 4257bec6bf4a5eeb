"""``python -m gpu_tomoclass``: the command line, where its script is not on the path."""

from gpu_tomoclass.cli import main

main()
