"""Run the command as `python -m hawq`."""

from hawq.cli.main import main

if __name__ == "__main__":
    main()
