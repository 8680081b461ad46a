"""The English sentence of every code: the source of the catalogues, and what the command line prints."""

from llamora.errors import Problem

MESSAGES: dict[str, str] = {}


def sentence(problem: Problem) -> str:
    """Return the English sentence of a problem. Raises KeyError for a code that has none."""
    return MESSAGES[problem.code].format_map(problem.params)
