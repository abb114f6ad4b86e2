import ast
from pathlib import Path

LEAST = 2000


def test_the_slow_run_tries_thousands_of_cases():
    """Sums what `cases` declares; hypothesis tries as many, and the summary counts them."""
    total = 0
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "cases":
                    total += call.args[0].value
    assert total >= LEAST
