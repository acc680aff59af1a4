"""`python -m pipeline` is `mp`."""

from pipeline.cli.main import main

if __name__ == "__main__":
    main()
