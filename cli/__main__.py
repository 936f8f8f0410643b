"""python -m specdiff.cli"""

# Not in the folder above: pytest, which has our plugin, would take that file for its own __main__.

from .main import main

main()
