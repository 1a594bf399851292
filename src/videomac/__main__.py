"""`python -m videomac` is `videomac`."""

from videomac.cli import main

if __name__ == "__main__":
    main()
