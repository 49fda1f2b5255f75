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
        `cards` or `charts`, `card`, `chart`, `scroll`, `facts` and `pictures`.

    Returns:
      The whole HTML document.
    """
    shell = string.Template((_FOLDER / "page.html").read_text("utf-8"))
    css = (_FOLDER / "page.css").read_text("utf-8")
    return shell.substitute(title=html.escape(title), css=css, body=body.strip())


def data_uri(media_type: str, data: bytes) -> str:
    """A picture as text for `src`, for example of media type "image/jpeg"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
