"""The plotting library that a report carries: Plotly's basic bundle as it was released on npm, which fetches nothing.

    static/plotly-basic-4.1.1.min.js     plotly.js-basic-dist-min 4.1.1, MIT (static/plotly-LICENSE.txt)

The bundle within the Python package has maps and surfaces too, which no figure here needs, and is four times as large.
"""

from importlib.resources import files

FILE = "plotly-basic-4.1.1.min.js"


def plotly_js() -> str:
    """Return the library's text, safe within a script element."""
    return (files("unbraid.report") / "static" / FILE).read_text(encoding="utf-8").replace("</script", "<\\/script")
