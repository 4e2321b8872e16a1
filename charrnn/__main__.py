"""python -m charrnn: the command charrnn."""

from charrnn.cli.main import entry

if __name__ == "__main__":
    entry(program="python -m charrnn")
