"""python -m specdiff"""

from .cli.main import main

main()
