"""`python -m l2d` is `l2d`."""

from l2d.cli import app

if __name__ == "__main__":
    app(prog_name="l2d")
