"""`python -m wattribute`: the command line."""

from wattribute.agent.cli import main

if __name__ == "__main__":
    main()
