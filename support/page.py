"""HTML pages from Jinja templates: one file that opens offline, also on a phone.

A page's template begins with `{% extends "page.html" %}` and fills the blocks `title`
and `body`; `page.css` styles plain elements and the classes `eyebrow`, `lead`, `small`,
`note`, `grid` with `cards` or `charts`, `card`, `chart`, `scroll` (also `dense`),
`grey`, `facts` and `images` (also `paired`, of figures with a `pair`). The page may
load nothing: its content security policy allows inline styles and `data:` images only,
so a name from a data set can neither run a script nor call home. A page that a server
sends with a policy of its own replaces the block `policy`, and adds to `head`.
"""

import base64
from pathlib import Path

import jinja2

from support import text

_TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> jinja2.Environment:
    """Makes the environment that all pages are rendered in.

    Values are escaped, a name that is not defined is an error, and the functions of
    `support.text` are filters.

    Args:
      folders: of templates; those of this package are found in any case.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= text.FILTERS
    return made


def data_uri(media_type: str, data: bytes) -> str:
    """An image as text for `src`, for example of media type "image/jpeg"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
