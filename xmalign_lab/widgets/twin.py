"""What all widgets share: a box to show, a static twin for saved pages, and redrawing without flicker."""

from __future__ import annotations

import plotly.graph_objects as go
import traitlets


def redraw(shown: go.FigureWidget, wanted: go.Figure) -> None:
    """Make `shown` look like `wanted`, in one message to the browser; traces keep their identity, so zoom stays.

    Both have the same traces in the same order, unless their number differs: then they are replaced.
    """
    with shown.batch_update():
        if len(shown.data) == len(wanted.data):
            for old, new in zip(shown.data, wanted.data, strict=True):
                old.update(new.to_plotly_json())
        else:
            shown.data = ()
            shown.add_traces([go.Figure(wanted).data[i] for i in range(len(wanted.data))])
        shown.layout.update(wanted.layout.to_plotly_json())


class Twin(traitlets.HasTraits):
    """A widget whose traits are its interface: `box` is shown live, `static()` is the plain figure of this moment.

    Where it is displayed it also leaves its static twin as HTML, for pages without a kernel; that needs a
    plotly.js in the page (window.Plotly).
    """

    box = None

    def static(self) -> go.Figure:
        raise NotImplementedError

    def html(self) -> str:
        """The static twin as HTML, without plotly.js."""
        return self.static().to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return {**self.box._repr_mimebundle_(**kwargs), "text/html": self.html()}
