"""The environment and the base template of all pages."""

import base64

import jinja2
import pytest

from support import page


def test_templates_extend_the_page_and_escape_values(tmp_path):
    (tmp_path / "one.html").write_text(
        '{% extends "page.html" %}{% block title %}{{ name }}{% endblock %}'
        "{% block body %}<p>{{ name }}, {{ 0.5 | percent }}</p>{% endblock %}"
    )
    template = page.environment(tmp_path).get_template("one.html")
    html = template.render(name="<a> & b")
    assert "<title>&lt;a&gt; &amp; b</title>" in html
    assert "<main>\n<p>&lt;a&gt; &amp; b, 50.0\u00a0%</p>" in html
    with pytest.raises(jinja2.UndefinedError):
        template.render()


def test_page_loads_nothing_and_has_both_color_schemes():
    html = page.environment().get_template("page.html").render()
    assert "default-src 'none'" in html
    assert "http://" not in html and "https://" not in html
    assert "<script" not in html and "<link" not in html and "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_data_uri():
    kind, text = page.data_uri("image/jpeg", b"\xff\xd8").split(";base64,")
    assert kind == "data:image/jpeg"
    assert base64.b64decode(text) == b"\xff\xd8"
