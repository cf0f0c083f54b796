"""Links in Markdown, outside of code and comments."""

import re
from collections.abc import Callable

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
ELSEWHERE = re.compile(r"[a-z]+:")
"""How addresses begin that are no paths."""


def prose(text: str) -> str:
    """A page without code and comments."""
    text = FENCE.sub("", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return CODE.sub(lambda code: "x" * len(code[0]), text)


def files(text: str) -> list[tuple[str, str]]:
    """The path and the heading of each link to a file; the path is empty for a heading of the page itself."""
    targets = [target for _, _, target in LINK.findall(prose(text)) if not ELSEWHERE.match(target)]
    return [(path, heading) for path, _, heading in (target.partition("#") for target in targets)]


def rewrite(text: str, place_of: Callable[[str], str | None]) -> str:
    """A page with the paths of links to files replaced, and with text in place of links that have none."""

    def change(link: re.Match[str]) -> str:
        mark, title, target = link.groups()
        if ELSEWHERE.match(target) or target.startswith("#"):
            return link[0]
        path, hash_sign, heading = target.partition("#")
        place = place_of(path)
        return title if place is None else f"{mark}[{title}]({place}{hash_sign}{heading})"

    def change_outside_of_code(part: str) -> str:
        code = [(span.start(), span.end()) for span in CODE.finditer(part)]

        def unless_code(link: re.Match[str]) -> str:
            return link[0] if any(begin < link.start() < end for begin, end in code) else change(link)

        return LINK.sub(unless_code, part)

    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else change_outside_of_code(part) for number, part in enumerate(parts))
