"""python -m specdiff.cli"""

from .main import main

main()
