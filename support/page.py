"""The HTML shell of every report: one file that opens offline, on a phone, in the dark.

The page may load nothing: its content security policy allows inline styles and `data:`
pictures only, so a name from a data set can neither run a script nor call home.
"""

import base64
import html
import string
from pathlib import Path

_FOLDER = Path(__file__).parent


def render(title: str, body: str) -> str:
    """Puts a body into the page.

    Args:
      title: plain text; it is escaped here.
      body: HTML of the page's main column, already escaped. `page.css` styles plain
        elements and the classes `eyebrow`, `lead`, `small`, `note`, `grid` with
        `cards` or `charts`, `card`, `chart`, `scroll` (also `dense`), `grey`, `facts`,
        `pictures` (also `paired`, of figures with a `pair`), and `legend` with a
        `ramp` of colors.

    Returns:
      The whole HTML document.
    """
    shell = string.Template((_FOLDER / "page.html").read_text("utf-8"))
    css = (_FOLDER / "page.css").read_text("utf-8")
    return shell.substitute(title=html.escape(title), css=css, body=body.strip())


class Html(str):
    """Text that is HTML already: `tag` does not escape it again."""


def tag(name: str, *content: str, **attributes: str) -> Html:
    """An element: its content is escaped unless it is `Html`, its attributes are.

    `tag("td", "a < b", class_="number")` is `<td class="number">a &lt; b</td>`; an
    attribute without a value is left out.
    """
    words = [name]
    words += [
        f'{key.rstrip("_")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value
    ]
    inner = "".join(
        part if isinstance(part, Html) else html.escape(part) for part in content
    )
    return Html(f"<{' '.join(words)}>{inner}</{name}>")


def data_uri(media_type: str, data: bytes) -> str:
    """A picture as text for `src`, for example of media type "image/jpeg"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
