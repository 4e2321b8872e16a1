"""charrnn corpus: the cache of encoded texts, listed or cleared."""

from charrnn.cli.options import Parser
from charrnn.data.files import user_path
from charrnn.errors import InputError, escape_control


def main(arguments: list[str], program: str) -> None:
    """List the cache; with ``clear``, empty it first."""
    parser = Parser(program, "The cache of encoded texts: list it, or clear it.")
    parser.add_argument("command", nargs="?", choices=["list", "clear"], default="list")
    parser.add_argument("--cache-dir", help="as data.cache_dir; by default the user's cache folder")
    given = parser.parse_args(arguments)
    from charrnn.data import cache

    if given.cache_dir is not None and not user_path(given.cache_dir).is_dir():
        raise InputError(f"--cache-dir {given.cache_dir}: no such folder")
    folder = cache.cache_folder(given.cache_dir)
    if given.command == "clear":
        cache.clear_cache(folder)
    for line in cache.list_cache(folder):
        print(escape_control(line))
